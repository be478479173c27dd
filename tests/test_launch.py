"""The launchers: what they ask gcloud, xpk, sbatch and sky (stand-ins that write it down), and a real Slurm."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from test_train import assert_equal, config, done, finished, wait_for_step  # noqa: F401 (fixtures)

from sftmix_jax.experiment import config as experiment
from sftmix_jax.planning import aot

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path for path in LAUNCH.glob("*.sh") if path.name != "common.sh")
# Writes its arguments down, and says what the test has put into <name>.says, a line a call (the last one for ever).
# A line that begins with ! is printed to stderr, and the command fails.
STAND_IN = r"""#!/usr/bin/env bash
folder=$(dirname "$0")
printf '%s' "$(basename "$0")" >> "$folder/asked"; printf ' %q' "$@" >> "$folder/asked"; echo >> "$folder/asked"
[[ -p /dev/stdin ]] && cat >> "$folder/stdin"
for argument in "$@"; do [[ $argument == *.yaml ]] && cp "$argument" "$folder/task.yaml"; done
says="$folder/$(basename "$0").$1-says"; says2="$folder/$(basename "$0").says"
[[ $* == *queued-resources\ describe* ]] && says="$folder/describe"
[[ $* == *tpu-vm\ describe* ]] && says="$folder/node"
[[ $* == *"echo bare"* ]] && says="$folder/look"
[[ $* == *queued-resources\ create* ]] && says="$folder/create"
for file in "$says" "$says2"; do
  if [[ -f $file ]]; then
    line=$(head -n 1 "$file"); [[ $(wc -l < "$file") -le 1 ]] || sed -i 1d "$file"
    if [[ $line == !* ]]; then echo "${line#!}" >&2; exit 1; fi
    echo "$line"
    break
  fi
done
exit 0
"""


@pytest.fixture
def tools(tmp_path):
    """A folder of stand-ins for the PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("gcloud", "xpk", "sbatch", "sky", "kubectl", "docker", "nvidia-smi"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    return folder


def launch(tools, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PATIENCE": "0"} | variables
    return subprocess.run(
        [LAUNCH / arguments[0], *arguments[1:]], env=env, text=True, capture_output=True, timeout=60, check=False
    )


def asked(tools) -> list[list[str]]:
    """The commands so far, as lists of arguments."""
    file = tools / "asked"
    return [shlex.split(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing():
    checked = subprocess.run(
        ["shellcheck", "-x", *(path.name for path in SCRIPTS)], cwd=LAUNCH, text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_launcher_says_what_it_does_and_costs(script):
    shown = subprocess.run([script, "--help"], text=True, capture_output=True, check=False)
    text = shown.stdout
    assert f"launch/{script.name}" in text and "Cost:" in text and "--dry-run" in text
    nothing = subprocess.run([script], text=True, capture_output=True, check=False)
    assert nothing.returncode == 2


DRY = {
    "tpu_vm.sh": ["create", "pod"],
    "gke.sh": ["run", "cluster", "name", "train", "--workdir", "gs://b/w"],
    "slurm.sh": ["--nodes", "2", "--", "train", "--workdir", "/w"],
    "sky.sh": ["H100:8", "name", "train", "--workdir", "gs://b/w"],
    "gpu.sh": ["train", "--workdir", "w"],
    "local.sh": ["train", "--workdir", "w"],
}


@pytest.mark.parametrize("name", [path.name for path in SCRIPTS])
def test_a_dry_run_asks_nobody(tools, name):
    ran = launch(tools, name, "--dry-run", *DRY[name], PROJECT="p", ZONE="z", IMAGE="i", PYTHON="python-of-nowhere")
    assert ran.returncode == 0, ran.stderr
    assert "+ " in ran.stderr and asked(tools) == []


def test_a_tpu_slice_is_asked_for_waited_for_set_up_and_run_on_every_host(tools):
    (tools / "describe").write_text("ACCEPTED\nPROVISIONING\nACTIVE\n")
    made = launch(
        tools, "tpu_vm.sh", "create", "pod", ACCELERATOR="v5p-32", RUNTIME="v2-alpha-tpuv5", ZONE="us-east5-a", SPOT="1"
    )
    assert made.returncode == 0, made.stderr
    first, *looks = asked(tools)
    assert first[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "pod"] and "--spot" in first
    assert first[first.index("--accelerator-type") + 1] == "v5p-32" and first[first.index("--zone") + 1] == "us-east5-a"
    assert len(looks) == 3 and all("describe" in look for look in looks)

    assert launch(tools, "tpu_vm.sh", "setup", "pod").returncode == 0
    copied, installed = asked(tools)[-2:]
    assert "scp" in copied and copied[-2:] == ["--worker", "all"]
    assert installed[installed.index("--worker") + 1] == "all" and ".[tpu,gcs]" in installed[-1]

    prompt = "it's $HOME"
    ran = launch(tools, "tpu_vm.sh", "run", "pod", "train", "--workdir", "gs://b/w", f"--config.name={prompt}")
    assert ran.returncode == 0, ran.stderr
    command = asked(tools)[-1][-1]
    assert "sftmix_jax.train" in command and "gs://b/w" in command and "exit_code" in command
    assert launch(tools, "tpu_vm.sh", "run", "pod", "train", "--workdir", "local").returncode == 2


@pytest.mark.parametrize(
    ("accelerator", "version"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-32", "v2-alpha-tpuv5"),
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("tpu7x-8", "GKE alone: launch/gke.sh"),
        ("v9-8", "set RUNTIME"),
    ],
)
def test_the_runtime_version_follows_from_the_accelerator(tools, accelerator, version):
    (tools / "describe").write_text("ACTIVE\n")
    made = launch(tools, "tpu_vm.sh", "create", "pod", ACCELERATOR=accelerator)
    if made.returncode == 0:
        words = asked(tools)[0]
        assert words[words.index("--runtime-version") + 1] == version
    else:
        assert made.returncode == 2 and version in made.stderr and not asked(tools)


@pytest.fixture
def host(tmp_path):
    """Where commands of a slice's host run, with stand-ins for the Python of its system image (3.10) and for ours."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    python = home / "bin" / "python3"
    python.write_text("""#!/usr/bin/env bash
[[ $* == "-m pip install -q uv" ]] && touch "$HOME/has-uv"
if [[ $* == "-m uv venv "*" --python 3.12 .venv" && -f $HOME/has-uv ]]; then
  mkdir -p .venv/bin
  printf '#!/usr/bin/env bash\nprintf "%%s\\n" "$@" > "$(dirname "$0")/words"\ntrap "exit 143" TERM\n. "$HOME/does"\n' > .venv/bin/python
  chmod +x .venv/bin/python
fi
[[ $* != *"-m venv"* ]]  # it has none that would do
""")  # noqa: E501
    python.chmod(0o755)
    (home / "does").write_text("exit 7\n")
    return home


def on_host(host, command: str) -> str:
    """What a remote command says, run by a real shell."""
    env = os.environ | {"HOME": str(host), "PATH": f"{host / 'bin'}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", command], cwd=host, env=env, text=True, capture_output=True, timeout=30, check=False
    )
    return ran.stdout.strip() if not ran.returncode else f"code {ran.returncode}: {ran.stderr}"


def soon(host, command: str, wanted: str) -> str:
    """What a command says once it begins with what is wanted, or at last."""
    for _ in range(100):
        if (said := on_host(host, command)).startswith(wanted):
            break
        time.sleep(0.05)
    return said


def test_what_runs_on_a_host_is_what_was_asked_and_is_found_again(tools, host):
    """Set up with a Python that fits, started, looked at, refused a second time, stopped: all by a real shell."""
    words = ["train", "--workdir", "gs://b/w", '--config.name=it\'s $HOME; "a b"']
    (tools / "describe").write_text("ACTIVE\n")
    (tools / "look").write_text("ended 2 0\n")  # a former keep's: it is begun again
    (tools / "look").open("a").write("ended 0 0\n")
    assert launch(tools, "tpu_vm.sh", "setup", "pod").returncode == 0
    set_up = asked(tools)[-1][-1]
    assert launch(tools, "tpu_vm.sh", "keep", "pod", *words).returncode == 0
    look, stop, start = (
        next(w[-1] for w in asked(tools) if sign in w[-1]) for sign in ("echo bare", "kill -TERM", "setsid")
    )
    assert on_host(host, look) == "bare"
    (host / "empty").mkdir()
    subprocess.run(["tar", "-czf", host / "sftmix.tar.gz", "-C", host / "empty", "."], check=True)
    assert on_host(host, set_up) == "" and on_host(host, look) == "idle"

    (host / "does").write_text("sleep 30 & wait\n")
    assert on_host(host, start) == "" and soon(host, look, "running") == "running"
    said = soon(host, "cat sftmix/.venv/bin/words", "-m")
    assert said.splitlines() == ["-m", "sftmix_jax.train", *words[1:]]
    assert "code 3: a command runs here already" in on_host(host, start)
    other = look.replace("train", "evaluate")
    assert on_host(host, other) == "other"
    assert on_host(host, stop) == "" and on_host(host, look) == "idle"

    ends = []
    for log in ("", "goes on after step 10 of 90", "goes on after step 10 of 90", "goes on after step 20 of 90"):
        (host / "does").write_text(f"echo {log}\nexit 7\n")
        assert on_host(host, start) == ""
        ends.append(soon(host, look, "ended"))
    marks = [said.split()[2] for said in ends]
    assert all(said.startswith("ended 7 ") for said in ends)
    assert marks[1] == marks[2] and len(set(marks)) == 3
    assert on_host(host, other) == "idle"  # another command's end is not this one's


KEEP = ("tpu_vm.sh", "keep", "pod", "train", "--workdir", "gs://b/w")


def did(tools) -> list[str]:
    """What keep changed, in order."""
    signs = {
        "queued-resources create": "create",
        "queued-resources delete": "delete",
        " scp ": "copy",
        "pip install": "install",
        "setsid": "start",
        "kill -TERM": "stop",
    }
    lines = [" ".join(words) for words in asked(tools)]
    return [next((name for sign, name in signs.items() if sign in line), "") for line in lines]


@pytest.mark.parametrize(
    ("describe", "look", "node", "wanted", "said"),
    [
        # nothing there: asked for, waited for, set up, started; it ends with code 0
        (
            "!ERROR: NOT_FOUND: no such\nWAITING_FOR_RESOURCES\nACTIVE",
            "bare\nidle\nrunning\nended 0 1",
            "",
            "create copy install start",
            "pod: done",
        ),
        # gcloud fails now and then: nothing is begun over what runs
        (
            "!ERROR: 503 backend\nACTIVE\n!timed out\nACTIVE\n!no network\nACTIVE",
            "running\nrunning\nended 0 1",
            "",
            "",
            "503 backend",
        ),
        # a slice that is installed and free is used
        ("ACTIVE", "idle\nrunning\nended 0 1", "", "start", "pod: done"),
        # preempted twice: first the request says so, then the machine alone
        (
            "ACTIVE\nSUSPENDING\nSUSPENDED\n!Resource not found\nACTIVE",
            "running\nbare\nidle\n!ssh: refused\nrunning\nended 0 1",
            "PREEMPTED",
            "delete create copy install start delete",
            "pod: done",
        ),
        # a host that does not answer, of a machine that is there, is waited for
        ("ACTIVE", "running\n!ssh: refused\nrunning\nended 0 1", "READY", "", "host 0 does not answer"),
        # an error is begun again, as long as checkpoints come
        (
            "ACTIVE",
            "running\nended 1 5\nended 1 6\nended 1 7\nended 1 8\nended 0 8",
            "",
            "stop start stop start stop start stop start",
            "pod: done",
        ),
        # the same error from the same checkpoint
        ("ACTIVE", "running\nended 1 5", "", "stop start stop start", "three times at the same checkpoint"),
        ("ACTIVE", "running\nended 2 5", "", "", "refused its input"),
        ("ACTIVE", "other", "", "", "another command runs on pod"),
        # requests that fail, and gcloud that refuses to make one
        (
            "FAILED\n!not found\nFAILED\n!not found\nFAILED\n!not found\nFAILED\n!not found\nFAILED",
            "",
            "",
            "delete create delete create delete create delete create delete",
            "failed 5 times",
        ),
    ],
)
def test_keep_goes_on_through_what_may_happen(tools, describe, look, node, wanted, said):
    for name, text in (("describe", describe), ("look", look), ("node", node)):
        (tools / name).write_text(f"{text}\n")
    kept = launch(tools, *KEEP)
    assert said in kept.stderr
    assert kept.returncode == (0 if "pod: done" in kept.stderr else 2), kept.stderr
    assert " ".join(filter(None, did(tools))) == wanted


def test_keep_gives_up_where_gcloud_refuses_the_request(tools):
    (tools / "describe").write_text("!NOT_FOUND\n")
    (tools / "create").write_text("!quota exceeded\n")
    kept = launch(tools, *KEEP)
    assert kept.returncode == 2 and "quota exceeded" in kept.stderr and did(tools).count("create") == 5


def test_every_command_of_the_tpu_guide_works_as_written(tools, tmp_path):
    """Run as one script. Configs, fields and options are known, and what a run reads from the bucket was put there."""
    text = (ROOT / "docs/tpu.md").read_text()
    script = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    for name in ("python", "pip"):
        shutil.copy(tools / "gcloud", tools / name)
    (tools / "describe").write_text("ACTIVE\n")
    (tools / "look").write_text("ended 0 1\nidle\nrunning\nended 0 1\n")  # training has ended, then evaluate runs
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PATIENCE": "0", "PYTHON": str(tools / "python")}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr

    lines = [" ".join(words) for words in asked(tools)]
    copied = {f"gs://BUCKET/data/{os.path.basename(word)}" for words in asked(tools) if "cp" in words for word in words}
    read = {path for line in lines for path in re.findall(r"gs://BUCKET/data/[\w.]+", line) if "storage cp" not in line}
    assert read and read <= copied
    local = [words[2:] for words in asked(tools) if words[:2] == ["python", "-m"]]
    found = [[module.removeprefix("sftmix_jax."), *arguments] for module, *arguments in local]
    on_hosts = [written for line in lines for written in re.findall(r"pid; echo (.*?) > command", line)]
    found += [shlex.split(*shlex.split(written)) for written in on_hosts]
    assert {verb for verb, *_ in found} == {"plan", "audit", "train", "report", "evaluate", "export"}
    for verb, *arguments in found:
        options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        known = {field.name for field in dataclasses.fields(importlib.import_module(f"sftmix_jax.{verb}").Options)}
        assert {option[2:].partition(".")[0] for option in options} <= known, arguments
        if "--config" in arguments:
            file = arguments[arguments.index("--config") + 1]
            experiment.read(["--config", file, *(word for word in arguments if word.startswith("--config."))])
        if "--topology" in arguments:
            assert set(arguments[arguments.index("--topology") + 1].split(",")) <= set(aot.TOPOLOGIES)


def test_several_slices_on_gke(tools):
    ran = launch(
        tools,
        "gke.sh",
        "run",
        "cluster",
        "dmt",
        "train",
        "--workdir",
        "gs://b/w",
        PROJECT="p",
        ZONE="z",
        SLICES="2",
        TPU_TYPE="v5litepod-256",
        IMAGE="registry/sftmix",
    )
    assert ran.returncode == 0, ran.stderr
    words = asked(tools)[-1]
    assert words[words.index("--docker-image") + 1] == "registry/sftmix"
    assert words[words.index("--restart-on-exit-codes") + 1] == "1"  # how the others end when one is lost
    assert words[:3] == ["xpk", "workload", "create"] and words[words.index("--num-slices") + 1] == "2"
    assert (
        launch(tools, "gke.sh", "run", "cluster", "dmt", "train", "--workdir", "here", PROJECT="p", ZONE="z").returncode
        == 2
    )


def test_gke_builds_the_image_that_it_runs_and_follows_every_pod(tools):
    where = {"PROJECT": "p", "ZONE": "z"}
    unnamed = launch(tools, "gke.sh", "run", "cluster", "dmt", "train", "--workdir", "gs://b/w", **where)
    assert unnamed.returncode != 0 and "set IMAGE" in unnamed.stderr and not asked(tools)
    assert launch(tools, "gke.sh", "image", "cluster", IMAGE="registry/sftmix", **where).returncode == 0
    build, push = asked(tools)
    assert build[:2] == ["docker", "build"] and "registry/sftmix" in build and push[1:] == ["push", "registry/sftmix"]
    assert os.path.isfile(build[build.index("--file") + 1])
    assert launch(tools, "gke.sh", "logs", "cluster", "dmt", **where).returncode == 0
    words = asked(tools)[-1]
    assert "--all-containers" in words and int(words[words.index("--max-log-requests") + 1]) > 256


def test_sky_gets_a_task_with_the_command(tools):
    ran = launch(tools, "sky.sh", "tpu-v5litepod-16", "dmt", "train", "--workdir", "gs://b/w", SPOT="1")
    assert ran.returncode == 0, ran.stderr
    assert asked(tools)[-1][:3] == ["sky", "jobs", "launch"] and "--use-spot" in asked(tools)[-1]
    import yaml

    task = yaml.safe_load((tools / "task.yaml").read_text())
    assert task["resources"]["accelerators"] == "tpu-v5litepod-16" and ".[tpu,gcs]" in task["setup"]
    assert "sftmix_jax.train --workdir gs://b/w" in task["run"]


def test_an_array_shares_a_study_and_a_report_follows(tools):
    (tools / "sbatch.says").write_text("41\n42\n")
    ran = launch(tools, "slurm.sh", "--array", "0-7", "--", "study", "--config", "rq4.py:7b", "--workdir=/shared/rq4")
    assert ran.returncode == 0 and ran.stdout.split() == ["41", "42"], ran.stderr
    array, report = asked(tools)
    assert array[:4] == ["sbatch", "--parsable", "--array", "0-7"] and "afterany:41" in report
    body = (tools / "stdin").read_text()
    assert "--workers 1" in body and "sftmix_jax.report --workdir /shared/rq4" in body
    assert launch(tools, "slurm.sh", "--array", "0-7", "--", "train", "--workdir", "/w").returncode == 2


def test_gpus_are_chosen(tools, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\necho "$CUDA_VISIBLE_DEVICES $XLA_PYTHON_CLIENT_MEM_FRACTION $*"\n')
    python.chmod(0o755)
    ran = launch(tools, "gpu.sh", "--gpus", "0,3", "train", "--workdir", "a b", PYTHON=str(python))
    assert ran.stdout == "0,3 0.9 -m sftmix_jax.train --workdir a b\n"


@pytest.mark.slow
def test_two_processes_on_this_machine(config, finished, tmp_path):  # noqa: F811
    command = [LAUNCH / "local.sh", "-n", "2", "train", f"--config={config}:0.25", f"--workdir={tmp_path}"]
    env = os.environ | {"PYTHON": sys.executable, "XLA_FLAGS": ""}
    started = subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for_step(tmp_path, 3)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 143
    again = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    for stage, record in done(finished).items():
        assert done(tmp_path)[stage]["ledger"] == record["ledger"]


SLURM = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={other}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A real Slurm of one node on loopback: the variable that its commands need."""
    tools = ("munged", "slurmctld", "slurmd", "sbatch")
    search = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [tool for tool in tools if not shutil.which(tool, path=search)]:
        pytest.skip(f"no {', '.join(missing)} here (Debian: slurm-wlm and munge)")
    if os.getuid():
        pytest.skip("Slurm's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    (folder / "slurm.conf").write_text(
        SLURM.format(
            host=socket.gethostname().split(".")[0], port=ports[0], other=ports[1], folder=folder, cpus=os.cpu_count()
        )
    )
    env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": search}
    files = {
        "key-file": "munge.key",
        "socket": "munge.sock",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "seed",
    }
    munged = ["munged", "--force", *(f"--{option}={folder / file}" for option, file in files.items())]
    try:
        for command in (munged, ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=env, capture_output=True, timeout=20, check=True)
        for _ in range(50):
            if "idle" in subprocess.run(["sinfo"], env=env, capture_output=True, text=True, check=False).stdout:
                break
            time.sleep(0.2)
        else:
            pytest.skip(f"Slurm does not come up here: {(folder / 'slurmctld.log').read_text()[-300:]}")
        yield {"SLURM_CONF": env["SLURM_CONF"], "PATH": search}
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"Slurm does not start here: {error}")
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            if (file := folder / f"{name}.pid").exists():
                os.kill(int(file.read_text()), signal.SIGTERM)


def ask(slurm, *command: str) -> str:
    """What a command of Slurm's says; one that gets no answer from the controller is asked again."""
    for _ in range(20):
        ran = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, check=False)
        if not ran.returncode:
            return ran.stdout
        time.sleep(0.5)
    raise AssertionError(f"{' '.join(command)}: {ran.stderr}")


def wait_for_jobs(slurm, timeout: float = 240) -> None:
    begin = time.monotonic()
    while queued := ask(slurm, "squeue", "--noheader", "--format", "%i %T %r").strip():
        if time.monotonic() - begin > timeout:
            pytest.fail(f"still there: {queued}")
        time.sleep(0.5)


def submit(slurm, tmp_path, *arguments: str) -> list[str]:
    env = os.environ | slurm | {"PYTHON": sys.executable, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [LAUNCH / "slurm.sh", *arguments],
        env=env,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.slow
def test_a_slurm_job_that_is_told_to_stop_saves_and_is_queued_again(slurm, config, finished, tmp_path):  # noqa: F811
    workdir = tmp_path / "workdir"
    (job,) = submit(slurm, tmp_path, "--", "train", f"--config={config}:0.25", f"--workdir={workdir}")
    wait_for_step(workdir, 3)
    ask(slurm, "scancel", "--batch", "--signal=TERM", job)
    log = tmp_path / f"sftmix-{job}.log"
    released = False
    for _ in range(600):
        shown = ask(slurm, "scontrol", "show", "job", job)
        state = re.search(r"JobState=(\w+)", shown)[1]
        assert state not in ("FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"), shown + log.read_text()
        if state == "COMPLETED":
            break
        if state == "PENDING" and "Restarts=1" in shown and not released:
            # Slurm holds a requeued job for two minutes and its administrator may begin sooner, but not while the node
            # still cleans up: it refuses the job as killed ("Job credential revoked"), and that ends it.
            time.sleep(10)
            ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")
            released = True
        time.sleep(0.5)
    assert_equal(done(workdir), finished)
    assert len(re.findall("stopped and saved", log.read_text())) == 1


STUDY = """
import importlib.util
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.studies.study import Run, Study

spec = importlib.util.spec_from_file_location("one", "CONFIG")
one = importlib.util.module_from_spec(spec)
spec.loader.exec_module(one)


def get_config(argument=""):
    runs = []
    for name, k in (("dmt", "0.25"), ("mixed_sequential", "0")):
        experiment = one.get_config(k)
        experiment.evaluation = EvaluationConfig(tasks=("tiny_math",), limit=4)
        runs.append(Run(experiment, {"strategy": name, "size": "tiny", "seed": 0, "k": k}))
    return Study("two", "Does the array share?", runs)
"""


@pytest.mark.slow
def test_a_slurm_array_trains_every_stage_of_a_study_once(slurm, config, tmp_path):  # noqa: F811
    workdir = tmp_path / "workdir"
    (tmp_path / "two.py").write_text(STUDY.replace("CONFIG", str(config)))
    ids = submit(
        slurm,
        tmp_path,
        "--array",
        "0-1",
        "--",
        "study",
        "--config",
        str(tmp_path / "two.py"),
        "--workdir",
        str(workdir),
    )
    assert len(ids) == 2
    wait_for_jobs(slurm)
    assert len(done(workdir)) == 3, [file.read_text()[-2000:] for file in tmp_path.glob("*.log")]
    assert (workdir / "report" / "index.html").exists()
    assert json.loads((workdir / "experiments" / "dmt.json").read_text())


@pytest.mark.slow
def test_emitted_jobs_train_a_study_in_their_order(slurm, config, tmp_path):  # noqa: F811
    workdir = tmp_path / "workdir"
    (tmp_path / "two.py").write_text(STUDY.replace("CONFIG", str(config)))
    arguments = ["--config", str(tmp_path / "two.py"), "--workdir", str(workdir)]
    env = os.environ | slurm | {"PYTHON": sys.executable, "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "sftmix_jax.study", *arguments, "--emit", "slurm"]
    script = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=True).stdout
    ran = subprocess.run(
        ["bash", "-s", "--", "--output", f"{tmp_path}/%j.log"],
        input=script,
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    wait_for_jobs(slurm)
    logs = [file.read_text()[-1500:] for file in tmp_path.glob("*.log")]
    assert len(done(workdir)) == 3 and (workdir / "report" / "index.html").exists(), logs
    assert not any("Traceback" in text for text in logs), logs
