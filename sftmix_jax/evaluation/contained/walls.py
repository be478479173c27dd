"""The walls around model-written code; each is put up where the kernel has it, and named if it stands.

Namespaces: no network interface, no other process to see. Root: a file system of Python's own folders, those of the
system's libraries and the packages that answers may use, without any other package that is installed there, so that
nothing else can be named, looked at or changed. Landlock: none of these can be written or executed, whoever the user
is. seccomp: no sockets, no new processes, no signals, no tracing, no change of a file's metadata, no locks. Limits:
memory, processor time, open files, threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

_NEW_MOUNT, _NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC = 0x2_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0800_0000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_PR_SET_CHILD_SUBREAPER = 36
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 0x1000, 0x4000, 0x4_0000, 2
_THREADS = 64
_NOBODY = 65534


def separate(packages: Sequence[str]) -> list[str]:
    """Leave the user, mount, network and IPC namespaces, for a small file system. → the walls."""
    os.chdir("/")
    own = _NEW_NET | _NEW_IPC | _NEW_MOUNT
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        with contextlib.suppress(OSError):  # root's own threads are not counted; files are opened as before
            os.setresuid(_NOBODY, -1, -1)
    if _libc.unshare(own | _NEW_USER) == 0:
        with contextlib.suppress(OSError):
            for file, text in (("uid_map", f"0 {user} 1"), ("setgroups", "deny"), ("gid_map", f"0 {group} 1")):
                with open(f"/proc/self/{file}", "w") as stream:
                    stream.write(text)
        resource.setrlimit(resource.RLIMIT_NPROC, (_THREADS, _THREADS))  # counted in this namespace alone
    elif _libc.unshare(own) != 0:
        return []
    return ["namespaces", "root"] if _change_root(_SYSTEM, packages) else ["namespaces"]


def separate_children() -> bool:
    """Children get a process namespace of their own."""
    return _libc.unshare(_NEW_PID) == 0


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends; process 1 may leave them waiting for long."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Prepared(NamedTuple):
    """Rules of Landlock, -1 where the kernel has none, and the filter of system calls, empty where there is none."""

    rules: int
    steps: bytes


INSIDE = ("limits", "landlock", "seccomp")  # what `enclose` can say


def prepare(packages: Sequence[str]) -> Prepared:
    """What `enclose` needs in every process that this one forks, made once."""
    return Prepared(_landlock_rules([*_SYSTEM, *packages]), _seccomp_filter())


def enclose(memory: int, seconds: int, prepared: Prepared) -> list[str]:
    """Shut this process in, for good. → the walls that stand."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    limit(memory, seconds)
    drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    walls = ["limits"]
    if _landlock(prepared.rules):
        walls.append("landlock")
    if _seccomp(prepared.steps):
        walls.append("seccomp")
    return walls


def limit(memory: int, seconds: int) -> None:
    """Bytes of address space and seconds of processor time that this process may take."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 32,
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))


def drop_capabilities() -> None:
    header = struct.pack("Ii", 0x2008_0522, 0)  # version 3, this process
    _libc.capset(header, bytes(24))


# Where Python and the shared libraries of its modules lie.
_SYSTEM = (
    os.path.dirname(os.__file__),
    f"{sys.base_prefix}/lib",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
)


def _change_root(system: Sequence[str], packages: Sequence[str]) -> bool:
    """Make a file system that holds these paths the root of this process; other packages are not in it."""
    paths = [*system, *packages]
    over = next((p for p in ("/mnt", "/media", "/srv", "/var", "/tmp") if _can_hold(p, paths)), None)
    if over is None or _libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) != 0:
        return False
    if not _empty(over):
        return False
    for path in system:
        _show(over, path)
    for folder in {folder for path in system for folder in _installed(os.path.realpath(path))}:
        if not _empty(over + folder):
            return False
    for path in packages:
        _show(over, path)
    os.chdir(over)
    pivot_root = {"x86_64": 155, "aarch64": 41}.get(platform.machine())
    if pivot_root is None or _libc.syscall(pivot_root, b".", b".") != 0:
        os.chdir("/")
        return False
    _libc.umount2(b".", _DETACH)
    os.chdir("/")
    return True


def _empty(folder: str) -> bool:
    return _libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"size=64k,mode=755") == 0


def _installed(folder: str) -> list[str]:
    """The folders of packages in one of Python's or of libraries."""
    own = (f"{glob.escape(folder)}{python}/{kind}-packages" for python in ("", "/python*") for kind in ("site", "dist"))
    return [found for pattern in own for found in glob.glob(pattern) if os.path.realpath(found) == found]


def _can_hold(folder: str, paths: Sequence[str]) -> bool:
    return os.path.isdir(folder) and not any(os.path.realpath(path).startswith(f"{folder}/") for path in paths)


def _show(root: str, path: str) -> None:
    """Let the new root have a path of the old one, with the links on the way to it."""
    found, parts = "", [part for part in path.split("/") if part]
    for i, part in enumerate(parts):
        found = f"{found}/{part}"
        if os.path.islink(found):
            target = os.readlink(found)
            with contextlib.suppress(OSError):
                os.symlink(target, root + found)
            whole = os.path.normpath(os.path.join(os.path.dirname(found), target, *parts[i + 1 :]))
            return _show(root, whole)
        if not os.path.exists(found):
            return None
        if i < len(parts) - 1:
            os.makedirs(root + found, exist_ok=True)
    if os.path.isdir(found):
        os.makedirs(root + found, exist_ok=True)
    else:
        os.close(os.open(root + found, os.O_CREAT | os.O_WRONLY, 0o600))
    _libc.mount(found.encode(), (root + found).encode(), None, _BIND | _RECURSIVE, None)


def _landlock_rules(paths: Sequence[str]) -> int:
    create, add = 444, 445
    version = _libc.syscall(create, None, 0, 1)
    if version < 1:
        return -1
    # Everything that a version knows is handled, and so forbidden where no rule allows it.
    known = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    handled = [(1 << known) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0]  # files, TCP, signals and sockets
    fields = 3 if version >= 6 else 2 if version >= 4 else 1
    rules = _libc.syscall(create, struct.pack("QQQ", *handled), 8 * fields, 0)
    if rules < 0:
        return -1
    read_file, read_folder = 1 << 2, 1 << 3
    for path in paths:
        try:
            place = os.open(path, os.O_PATH)
        except OSError:
            continue
        allowed = read_file | (read_folder if os.path.isdir(path) else 0)
        _libc.syscall(add, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    return rules


def _landlock(rules: int) -> bool:
    if rules < 0:
        return False
    restrict = 446
    done = _libc.syscall(restrict, rules, 0) == 0
    os.close(rules)
    return done


# Refused calls: name → number on x86-64 and on aarch64, None where it has no such call.
_REFUSED: dict[str, tuple[int, int | None]] = {
    # speak to the outside, start what outlives the run, reach other processes
    "socket": (41, 198),
    "socketpair": (53, 199),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "io_uring_setup": (425, 425),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "mq_open": (240, 180),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "syslog": (103, 116),
    # leave the walls
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "capset": (126, 91),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "acct": (163, 89),
    # memory that no limit counts, or that nobody else can look at
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # change files without opening them
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "flock": (73, 32),
    "ioctl": (16, 29),
    "quotactl": (179, 60),
    "sync": (162, 81),
    "syncfs": (306, 267),
    # look at files without opening them
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "getxattrat": (464, 464),
    "listxattrat": (465, 465),
    "file_getattr": (468, 468),
    "listmount": (458, 458),
    "statmount": (457, 457),
}
# What a processor calls itself to a filter, then clone, clone3, prlimit64 and fcntl.
_PROCESSORS = {"x86_64": (0xC000_003E, 56, 435, 302, 72), "aarch64": (0xC000_00B7, 220, 435, 261, 25)}
_CLONE_THREAD = 0x1_0000
_STEP = "HBBI"  # of a filter: operation, jumps where it applies and where not, operand
_FCNTL = (5, 6, 7, 8, 10, 15, 36, 37, 38, 1024, 1026)  # locks, leases, notices, and signals to others


def _seccomp_filter() -> bytes:
    machine = platform.machine()
    if machine not in _PROCESSORS or sys.maxsize < 1 << 32:
        return b""
    architecture, clone, clone3, prlimit, fcntl = _PROCESSORS[machine]
    load, equal, at_least, mask, give = 0x20, 0x15, 0x35, 0x54, 0x06
    allow, kill, no_permission, no_such_call = 0x7FFF_0000, 0x8000_0000, 0x0005_0001, 0x0005_0026
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (give, 0, 0, kill),  # another instruction set
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x4000_0000),
        (give, 0, 0, no_such_call),  # the x32 calls
    ]
    for numbers in _REFUSED.values():
        number = numbers[machine == "aarch64"]
        program += [(equal, 0, 1, number), (give, 0, 0, no_permission)] if number is not None else []
    # fcntl by its second argument; prlimit64 of this process alone.
    program += [(equal, 0, 2 + 2 * len(_FCNTL), fcntl), (load, 0, 0, 24)]
    for command in _FCNTL:
        program += [(equal, 0, 1, command), (give, 0, 0, no_permission)]
    program += [(give, 0, 0, allow)]
    program += [
        (equal, 0, 4, prlimit),
        (load, 0, 0, 16),
        (equal, 1, 0, 0),
        (give, 0, 0, no_permission),
        (give, 0, 0, allow),
    ]
    # clone3 hides its flags from a filter; without it libc falls back to clone, which may make threads alone.
    program += [
        (equal, 0, 1, clone3),
        (give, 0, 0, no_such_call),
        (equal, 1, 0, clone),
        (give, 0, 0, allow),
        (load, 0, 0, 16),
        (mask, 0, 0, _CLONE_THREAD),
        (equal, 0, 1, 0),
        (give, 0, 0, no_permission),
        (give, 0, 0, allow),
    ]
    return b"".join(struct.pack(_STEP, *step) for step in program)


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def _seccomp(steps: bytes) -> bool:
    if not steps:
        return False
    code = ctypes.create_string_buffer(steps)
    whole = _Filter(len(steps) // struct.calcsize(_STEP), ctypes.addressof(code))
    return _libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(whole), 0, 0) == 0
