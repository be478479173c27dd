"""The walls around model-written code; each is put up where the kernel has it, and named if it stands.

Namespaces: no network interface, no other process to see. Landlock: no file but Python's own can be read,
none written or executed, whoever the user is. seccomp: no sockets, no new processes, no signals, no tracing.
Limits: memory, processor time, open files.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)

_NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC = 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0800_0000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38


def separate() -> list[str]:
    """Leave the user, network and IPC namespaces; children get a process namespace of their own."""
    own = _NEW_PID | _NEW_NET | _NEW_IPC
    if _libc.unshare(own | _NEW_USER) == 0 or _libc.unshare(own) == 0:
        return ["namespaces"]
    return []


def enclose(memory: int, seconds: int) -> list[str]:
    """Shut this process in, for good. → the walls that stand."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    limit(memory, seconds)
    _drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    walls = ["limits"]
    if _landlock():
        walls.append("landlock")
    if _seccomp():
        walls.append("seccomp")
    return walls


def limit(memory: int, seconds: int) -> None:
    """Bytes of address space and seconds of processor time that this process may take."""
    limits = {
        resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: seconds + 1, resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 32,
    }  # fmt: skip
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))


def _drop_capabilities() -> None:
    header = struct.pack("Ii", 0x2008_0522, 0)  # version 3, this process
    _libc.capset(header, bytes(24))


def _readable() -> list[str]:
    """Where Python and the shared libraries of its modules lie."""
    return [
        os.path.dirname(os.__file__),
        f"{sys.base_prefix}/lib",
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/dev/null",
        "/dev/urandom",
    ]


def _landlock() -> bool:
    create, add, restrict = 444, 445, 446
    version = _libc.syscall(create, None, 0, 1)
    if version < 1:
        return False
    # Everything that a version knows is handled, and so forbidden where no rule allows it.
    known = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    handled = [(1 << known) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0]  # files, TCP, signals and sockets
    fields = 3 if version >= 6 else 2 if version >= 4 else 1
    rules = _libc.syscall(create, struct.pack("QQQ", *handled), 8 * fields, 0)
    if rules < 0:
        return False
    read_file, read_folder = 1 << 2, 1 << 3
    for path in _readable():
        try:
            place = os.open(path, os.O_PATH)
        except OSError:
            continue
        allowed = read_file | (read_folder if os.path.isdir(path) else 0)
        _libc.syscall(add, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    done = _libc.syscall(restrict, rules, 0) == 0
    os.close(rules)
    return done


# x86-64's numbers. Without them code could leave a namespace, speak to the outside, or start what outlives it.
_FORBIDDEN = {
    "socket": 41, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101, "setpgid": 109,
    "setsid": 112, "rt_sigqueueinfo": 129, "personality": 135, "pivot_root": 155, "prctl": 157, "chroot": 161,
    "mount": 165, "umount2": 166, "reboot": 169, "init_module": 175, "tkill": 200, "tgkill": 234, "mq_open": 240,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "rt_tgsigqueueinfo": 297, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313, "seccomp": 317, "memfd_create": 319,
    "bpf": 321, "execveat": 322, "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425,
    "pidfd_open": 434, "pidfd_getfd": 438, "shmget": 29, "semget": 64, "msgget": 68,
}  # fmt: skip
_CLONE, _CLONE3, _CLONE_THREAD = 56, 435, 0x1_0000


def _seccomp() -> bool:
    if platform.machine() != "x86_64" or sys.maxsize < 1 << 32:
        return False
    load, equal, at_least, mask, give = 0x20, 0x15, 0x35, 0x54, 0x06
    allow, kill, no_permission, no_such_call = 0x7FFF_0000, 0x8000_0000, 0x0005_0001, 0x0005_0026
    program = [
        (load, 0, 0, 4), (equal, 1, 0, 0xC000_003E), (give, 0, 0, kill),  # another instruction set
        (load, 0, 0, 0), (at_least, 0, 1, 0x4000_0000), (give, 0, 0, no_such_call),  # the x32 calls
    ]  # fmt: skip
    for number in _FORBIDDEN.values():
        program += [(equal, 0, 1, number), (give, 0, 0, no_permission)]
    # clone3 hides its flags from a filter; without it libc falls back to clone, which may make threads alone.
    program += [
        (equal, 0, 1, _CLONE3), (give, 0, 0, no_such_call),
        (equal, 1, 0, _CLONE), (give, 0, 0, allow),
        (load, 0, 0, 16), (mask, 0, 0, _CLONE_THREAD), (equal, 0, 1, 0), (give, 0, 0, no_permission),
        (give, 0, 0, allow),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    whole = Filter(len(program), ctypes.addressof(code))
    return _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(whole), 0, 0) == 0
