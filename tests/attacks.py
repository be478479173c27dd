"""Programs that try to get out, or to be taken for right; `f()` says "in" where it worked.

Run as a script it tries them all, as the user that it is run by, and prints what came of each as JSON.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sftmix_jax.evaluation import sandbox

TESTS = "assert f() == 'in'"
LEFT_BEHIND = Path("/tmp/sftmix_attack")
BARE = "import ctypes\nlibc = ctypes.CDLL(None)\n"

# Each is the body of f. What it needs to know of its surroundings is filled in by `program`.
ATTACKS = {
    "reads the environment": "import os\nreturn 'in' if {secret!r} in str(dict(os.environ)) else ''",
    "reads a file of the user": "open({file!r}).read()\nreturn 'in'",
    "reads the list of users": "open('/etc/passwd').read()\nreturn 'in'",
    "lists a folder": "import os\nos.listdir({folder!r})\nreturn 'in'",
    "writes a file": "open({left!r}, 'w').write('x')\nreturn 'in'",
    "removes a file": "import os\nos.remove({file!r})\nreturn 'in'",
    "follows a link of its own": "import os\nos.symlink('/', '/tmp/sftmix_link')\nreturn 'in'",
    "connects by TCP": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\nreturn 'in'",
    "sends by UDP": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.sendto(b'x', ('127.0.0.1', {port}))\nreturn 'in'",
    "asks for a name": "import socket\nsocket.getaddrinfo('localhost', 80)\nsocket.socket()\nreturn 'in'",
    "connects to a unix socket": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({unix!r})\nreturn 'in'",
    "forks without end": "import os\nwhile True:\n    os.fork()",
    "forks once": "import os\npid = os.fork()\nreturn 'in'",
    "starts a program": "import subprocess\nsubprocess.run(['/bin/true'], check=True)\nreturn 'in'",
    "leaves a sleeper behind": "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nreturn 'in'",
    "takes all memory": "x = bytearray(1 << 40)\nreturn 'in'",
    "takes memory bit by bit": "x = []\nwhile True:\n    x.append(bytearray(1 << 20))",
    "fills the disk": "import tempfile\nwith tempfile.TemporaryFile() as t:\n    t.write(bytes(1 << 24))\nreturn 'in'",
    "prints without end": "while True:\n    print('x' * 65536)",
    "answers without end": "return 'in' * (1 << 25)",
    "loops for ever": "while True: pass",
    "sleeps for ever": "import time\ntime.sleep(1000)",
    "signals its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nreturn 'in'",
    "signals all of its group": "import os, signal\nos.killpg(0, signal.SIGTERM)\nreturn 'in'",
    "signals the tests by number": "import os, signal\nos.kill({pid}, signal.SIGTERM)\nreturn 'in'",
    "traces its parent": "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
    "return 'in' if libc.ptrace(16, os.getppid() or {pid}, 0, 0) == 0 else ''",
    "reads /proc": "open('/proc/self/environ').read()\nreturn 'in'",
    "reads another's memory": "open('/proc/{pid}/mem', 'rb').read(1)\nreturn 'in'",
    "leaves its namespace by a bare call": "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "return 'in' if libc.syscall(272, 0x10000000) == 0 else ''",
    "opens a file by a bare call": "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "return 'in' if libc.syscall(2, b'/etc/passwd', 0) >= 0 else ''",
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nreturn 'in'",
    "exits well": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "is right in an atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\nraise SystemExit(0)",
    "answers from a thread later": "import threading, time\nthreading.Thread(target=lambda: time.sleep(9)).start()\n"
    "return ''",
    "is equal to everything": "class Any(str):\n    def __eq__(self, other): return True\n    __hash__ = str.__hash__\n"
    "return Any('out')",
    "is no plain value": "class Any:\n    def __eq__(self, other): return True\nreturn Any()",
    "walks the frames": "import re, sys\nframe = sys._getframe()\nfound = ''\nwhile frame:\n"
    "    found += str(frame.f_globals) + str(frame.f_locals)\n    frame = frame.f_back\n"
    "return 'in' if re.search('[0-9a-f]{{32}}', found) else ''",
    "looks through memory": "import gc\nreturn 'in' if any('assert' + ' f()' in str(o) for o in gc.get_objects() "
    "if isinstance(o, (str, dict))) else ''",
    "replaces builtins": "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.str = lambda *a: 'in'\n"
    "return ''",
    "prints a verdict": "print('{{\"passed\": true}}', flush=True)\nreturn ''",
    "writes to every pipe": "import os\nfor fd in range(32):\n    try: os.write(fd, b'{{\"passed\": true}}\\n')\n"
    "    except OSError: pass\nreturn ''",
    "answers as the judge": "import os\nfor fd in range(32):\n"
    '    try: os.write(fd, b\'.[[0],[["tuple",[false,"out",""]]],[],[]]\\n[]\\n\')\n'
    "    except OSError: pass\nreturn ''",
    "answers with objects that nobody has": "import os\nfor fd in range(32):\n"
    '    try: os.write(fd, b\'.[[-9],[],[[7,"list",["in"]]],[]]\\n[99,-9,"in"]\\n\')\n'
    "    except OSError: pass\nreturn ''",
    "says that the tests share very many objects": "import os\nfor fd in range(32):\n"
    '    try: os.write(fd, b\'.[[1],[["list",[]],["tuple",[false,[0],""]]],[],[]]\\n[\'\n'
    "                      + b'0,' * 30000 + b'0]\\n')\n"
    "    except OSError: pass\nreturn ''",
    "says what its class adds to a text": "import os\nfor fd in range(32):\n    try: os.write(fd, "
    'b\'.[[2],[["str",[111]],["object",0,"T",false,true,1],["tuple",[false,[0],""]]],[],\'\n'
    '                      b\'[[0,1,["__eq__","__class__","__getattribute__","__init__"]]]]\\n[]\\n\')\n'
    "    except OSError: pass\nreturn ''",
    "says that a text has a class of no object": "import os\nfor fd in range(32):\n"
    '    try: os.write(fd, b\'.[[1],[["str",[111]],["tuple",[false,[0],""]]],[],[[0,1,["x"]]]]\\n[]\\n\')\n'
    "    except OSError: pass\nreturn ''",
    "returns a class that is equal to everything": "class Meta(type):\n    def __eq__(self, other): return True\n"
    "    __hash__ = type.__hash__\nreturn Meta('str', (str,), {{}})",
    "raises itself as its own cause": "e = AssertionError('in')\ne.__cause__ = e\ne.args = (e,)\nraise e",
    "looks at installed packages": "import os\nfolders = [os.path.dirname(os.__file__), '/usr/lib/python3']\n"
    "return 'in' if any(os.listdir(f'{{f}}/{{k}}-packages') for f in folders for k in ('site', 'dist')\n"
    "                   if os.path.isdir(f'{{f}}/{{k}}-packages')) else ''",
    "connects by a pair of sockets": "import _socket\na, b = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)\n"
    "a.sendto(b'x', {unix!r})\nreturn 'in'",
    # change or look at files without opening them
    "makes a file readable to all": "import os\nos.chmod({file!r}, 0o644)\nreturn 'in'",
    "changes the mode of an open file": "import os\nfd = os.open(os.__file__, os.O_RDONLY)\n"
    "os.fchmod(fd, os.fstat(fd).st_mode & 0o7777)\nreturn 'in'",
    "changes a mode by the newest call": BARE + "done = libc.syscall(452, -100, {file!r}.encode(), 0o644, 0)\n"
    "return 'in' if done == 0 else ''",
    "gives a file to somebody": "import os\nos.chown({file!r}, os.getuid(), os.getgid())\nreturn 'in'",
    "sets a file's times": "import os\nos.utime({file!r}, (0, 0))\nreturn 'in'",
    "marks a file": "import os\nos.setxattr({file!r}, 'user.mark', b'x')\nreturn 'in'",
    "marks a file by the newest call": BARE + "value = ctypes.create_string_buffer(b'x')\n"
    "how = (ctypes.c_uint64 * 2)(ctypes.addressof(value), 1)\n"
    "return 'in' if libc.syscall(463, -100, {file!r}.encode(), 0, b'user.mark', how, 16) == 0 else ''",
    "sets a file's attributes": BARE + "done = libc.syscall(469, -100, {file!r}.encode(), bytes(24), 24, 0)\n"
    "return 'in' if done == 0 else ''",
    "reads a file's marks": "import os\nos.listxattr({file!r})\nreturn 'in'",
    "reads a file's flags": "import fcntl, os\nfd = os.open(os.__file__, os.O_RDONLY)\n"
    "fcntl.ioctl(fd, 0x80086601, bytes(8))\nreturn 'in'",
    "watches a file": BARE + "done = libc.inotify_add_watch(libc.inotify_init1(0), {file!r}.encode(), 4095)\n"
    "return 'in' if done >= 0 else ''",
    "watches all files": BARE + "return 'in' if libc.fanotify_init(0x200, 0) >= 0 else ''",
    "watches a folder": "import fcntl, os, signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n"
    "fd = os.open(os.path.dirname(os.__file__), os.O_RDONLY)\n"
    "fcntl.fcntl(fd, fcntl.F_NOTIFY, fcntl.DN_ACCESS)\nreturn 'in'",
    "asks how large a file is": "import os\nos.stat({file!r})\nreturn 'in'",
    "asks how large a file is, by another call": BARE + "seen = ctypes.create_string_buffer(256)\n"
    "return 'in' if libc.syscall(332, -100, {file!r}.encode(), 0, 0xfff, seen) == 0 else ''",
    "asks whether a file is there": "import os\nreturn 'in' if os.access({file!r}, os.F_OK) else ''",
    "asks for a file's handle": BARE + "handle = ctypes.create_string_buffer(b'\\x80\\0\\0\\0', 136)\n"
    "mount = ctypes.c_int()\n"
    "return 'in' if libc.name_to_handle_at(-100, {file!r}.encode(), handle, ctypes.byref(mount), 0) == 0 else ''",
    "asks how full a disk is": "import os\nos.statvfs({folder!r})\nreturn 'in'",
    "asks where it runs": "import os\nos.readlink('/proc/self/exe')\nreturn 'in'",
    "reads a link": "import os\nos.readlink({link!r})\nreturn 'in'",
    "goes to a folder": "import os\nos.chdir({folder!r})\nreturn 'in'",
    "lists the root": "import os\nreturn 'in' if {{'etc', 'home'}} & set(os.listdir('/')) else ''",
    "cuts a file": "import os\nos.truncate({file!r}, 7)\nreturn 'in'",
    "makes a pipe with a name": "import os\nos.mkfifo({left!r})\nreturn 'in'",
    "locks a file": "import fcntl, os\nfcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)\nreturn 'in'",
    "locks a part of a file": "import fcntl, os\nfcntl.lockf(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)\n"
    "return 'in'",
    "holds a file against writers": "import fcntl, os\n"
    "fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)\nreturn 'in'",
    "hides memory from everybody": BARE + "return 'in' if libc.syscall(447, 0) >= 0 else ''",
    "starts threads without end": "import threading\nthreading.stack_size(32768)\nstop = threading.Event()\n"
    "for _ in range(400):\n    threading.Thread(target=stop.wait, daemon=True).start()\nreturn 'in'",
    "changes its own priority": "import os\nos.setpriority(os.PRIO_PROCESS, 0, 19)\nreturn 'in'",
    "asks for another's limits": "import os, resource\n"
    "resource.prlimit(os.getppid() or {pid}, resource.RLIMIT_NOFILE)\nreturn 'in'",
    "moves another to a processor": "import os\nos.sched_setaffinity({pid}, os.sched_getaffinity(0))\nreturn 'in'",
    "lets a pipe signal another": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {pid})\nreturn 'in'",
    "becomes its user anew": "import os\nos.setresuid(os.geteuid(), os.geteuid(), os.geteuid())\nreturn 'in'",
    "imports what others have installed": "import sys\nsys.path.append({packages!r})\nimport jax\nreturn 'in'",
    "says what compares itself": "class Any:\n    def __eq__(self, other): return True\n"
    "    def __ne__(self, other): return False\n    __hash__ = object.__hash__\n"
    "return type('T', (tuple,), {{'_fields': ('x',)}})([Any()])",
    "is an array of another's memory": "class Any:\n    @property\n    def __array_interface__(self):\n"
    "        return {{'shape': (2,), 'typestr': '<U1', 'data': (id(''), False), 'version': 3}}\n"
    "    def __eq__(self, other): return True\nreturn Any()",
    "raises what compares itself": "class Wrong(AssertionError):\n    def __eq__(self, other): return True\n"
    "    def __bool__(self): return True\nraise Wrong('in')",
}


def program(name: str, **surroundings: object) -> str:
    body = ATTACKS[name].format(**surroundings)
    return "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())


def attempt(name: str, **surroundings: object) -> sandbox.Verdict:
    return sandbox.run(program(name, **surroundings), "f", TESTS, seconds=1, memory=1 << 28)


def processes(checkout: Path = Path(__file__).parents[1]) -> set[str]:
    """Everything that runs a sandbox of this checkout now, but for what another worker of these tests has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        above = ancestors(int(folder.name))
        beside = os.getppid() in above and os.getpid() not in above  # the workers have one parent
        if "judge.main()" in command and f"{checkout}/sftmix_jax" in command and not beside:
            found.add(folder.name)
    return found


def ancestors(pid: int) -> set[int]:
    """The processes that a process was started by, without the system's first, whose all orphans are."""
    above: set[int] = set()
    while pid > 1:
        above.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return above


if __name__ == "__main__":
    os.environ["SFTMIX_SECRET"] = "secret-of-the-caller"
    known = json.loads(sys.argv[1])
    print(json.dumps({name: [v.passed, v.reason] for name in ATTACKS for v in [attempt(name, **known)]}))
