"""A job for a borrowed machine that has a GPU and torch, but no network and none of this project's other packages.

On a machine with a network:

    python tools/gpu_job.py pack --data <folder of CIFAR-100 in parquet>

which leaves build/gpu, in parts of at most 60 MB. On the borrowed one, as often as it is lent, in a copy of this
checkout:

    python tools/gpu_job.py run --minutes 9 --out <folder to carry home>

which tests, measures, and then trains the suite cifar100 by priority; what is done is not done again, and training
goes on where it was. Back home:

    kdbench import <that folder>

Only the standard library is imported here, and what needs no more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tracking.parts import join_parts, missing_parts, write_parts  # noqa: E402  # the standard library alone, as here

BUILD = ROOT / "build" / "gpu"
# What training, timing and the tests import beside torch and numpy; neither MLflow, Optuna nor what draws.
PACKAGES = ("pydantic", "pyyaml", "rich", "safetensors", "typer", "pillow", "pyarrow", "scikit-learn", "pytest")
METHODS = "vanilla,kd,dkd,crd,reviewkd,block_kd,sld,dist"
PAIRS = ("resnet32x4 -> resnet8x4", "resnet56 -> resnet20")
TIMED_OUT = 124
LEAST_S = 20.0  # below it nothing is begun


def main() -> int:
    """Read the command line and do what it says; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack", help="gather wheels and data, where there is a network")
    packing.add_argument("--data", type=Path, help="folder of CIFAR-100 in parquet")
    packing.add_argument("--python", default="3.12", help="Python of the borrowed machine")
    packing.add_argument("--platform", default="manylinux_2_28_x86_64", help="its platform, as pip names it")
    packing.set_defaults(action=lambda given: pack(given.data, given.python, given.platform))
    running = commands.add_parser("run", help="test, measure and train, on the borrowed machine")
    running.add_argument("--minutes", type=float, default=9.0, help="all of it ends within this time")
    running.add_argument("--out", type=Path, required=True, help="folder to carry home")
    running.add_argument("--only", default="test,time,train", help="test, time, train")
    running.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    running.add_argument("--suite", default="cifar100")
    running.add_argument("--methods", default=METHODS)
    running.add_argument("--pairs", default=",".join(PAIRS), help="by priority, comma-separated")
    running.add_argument("--seeds", default="3")
    running.add_argument("--set", action="append", default=[], dest="sets", help="as of kdbench run")
    running.set_defaults(action=lambda given: Job(given).run())
    given = parser.parse_args()
    return int(given.action(given))


def pack(data: Path | None, python: str, system: str) -> int:
    """Fill build/gpu with parts: wheels for that Python and platform, the data, the commit."""
    content = BUILD / "content"
    shutil.rmtree(content, ignore_errors=True)
    wheels = content / "wheels"
    wheels.mkdir(parents=True)
    only = [
        "--only-binary=:all:",
        "--python-version",
        python,
        "--platform",
        system,
        "--platform",
        "manylinux2014_x86_64",
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *only, "--dest", str(wheels), *PACKAGES], check=True
    )
    for file in [*wheels.glob("numpy-*"), *wheels.glob("torch-*")]:
        file.unlink()  # the borrowed machine's own fit its GPU
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (content / "commit").write_text(commit.stdout.strip())
    if data:
        shutil.copytree(data, content / "data")
    parts = write_parts(content, BUILD, "part")
    shutil.rmtree(content)
    for part in parts:
        print(f"{part.relative_to(ROOT)}  {part.stat().st_size / 1e6:.0f} MB")
    print("carry these parts with the checkout, in as many calls as it takes; then: python tools/gpu_job.py run")
    return 0


class Job:
    """What the borrowed machine does in one call, against the clock."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.deadline = time.monotonic() + 60 * given.minutes
        self.out: Path = given.out
        self.work = BUILD / "work"  # stays on the machine between calls

    def run(self) -> int:
        """Unpack, then every stage that is asked for and not done yet; what it leaves lies in `out`."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.unpack()
        stages = {"test": self.test, "time": self.time, "train": self.train}
        wanted = self.given.only.split(",")
        if unknown := [name for name in wanted if name not in stages]:
            print(f"gpu_job: no stage '{unknown[0]}'; type --only {','.join(stages)}", file=sys.stderr)
            return 2
        (self.work / "logs").mkdir(parents=True, exist_ok=True)
        for name in wanted:
            if self.left() > LEAST_S:
                stages[name]()
        self.carry_home()
        return 0

    def left(self) -> float:
        """Seconds until this call has to be over, less what packing takes."""
        return self.deadline - time.monotonic() - 10.0

    def unpack(self) -> None:
        """Wheels, data and commit, once; what was carried home by an earlier machine, if it came along."""
        if (BUILD / "part.json").exists() and not (self.work / "site").exists():
            self.join("part", self.work)
            wheels = [str(wheel) for wheel in sorted((self.work / "wheels").glob("*.whl"))]
            install = ["install", "--quiet", "--no-index", "--no-deps", "--target", str(self.work / "site")]
            subprocess.run([sys.executable, "-m", "pip", *install, *wheels], check=True)
        if (BUILD / "result.json").exists() and not (self.work / "results").exists():
            self.join("result", self.work / "results")

    def join(self, name: str, to: Path) -> None:
        """Unpack parts of that name; ends the call with one line where one is not here yet."""
        if missing := missing_parts(BUILD, name):
            sys.exit(f"gpu_job: {', '.join(missing)} of build/gpu is not here yet; carry it, and call again")
        join_parts(BUILD, name, to)

    def call(self, log: str, words: Iterable[str], seconds: float) -> int:
        """Python with these words, until the time is over, its output in logs/`log`; its status, or TIMED_OUT."""
        paths = [str(ROOT), str(self.work / "site"), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "KDBENCH_OFFLINE": "1"}
        own |= {"KDBENCH_TEST_DEVICE": self.given.device}
        if (self.work / "commit").exists():
            own["KDBENCH_COMMIT"] = (self.work / "commit").read_text()
        if (self.work / "data").exists():
            own["KDBENCH_CIFAR100"] = str(self.work / "data")
        path = self.work / "logs" / log
        print(f"gpu_job: {' '.join(words)} ({seconds:.0f} s at most)", flush=True)
        with path.open("w") as file:
            try:
                status = subprocess.run(
                    [sys.executable, *words], cwd=ROOT, env=os.environ | own, stdout=file, stderr=subprocess.STDOUT,
                    timeout=seconds,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                status = TIMED_OUT
        print(path.read_text(errors="replace")[-3000:], flush=True)
        return status

    def is_done(self, stage: str) -> bool:
        """Was this stage's figure made by an earlier call on this machine?"""
        return (self.work / f"{stage}.done").exists()

    def test(self) -> None:
        """The tests that need a GPU."""
        if not self.is_done("test"):
            words = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu"]
            if self.call("test.txt", words, self.left()) != TIMED_OUT:
                (self.work / "test.done").touch()

    def time(self) -> None:
        """`kdbench time` of both pairs, for one student and for eight."""
        for pair in self.given.pairs.split(","):
            for k in (1, 8):
                name = f"time-{pair.replace(' -> ', '-')}-{k}"
                if self.is_done(name) or self.left() < LEAST_S:
                    continue
                words = ["-m", "bench", "time", self.given.suite, "--methods", ",".join(["kd"] * k), "--json"]
                words += ["--device", self.given.device, "--set", f"pairs=['{pair.strip()}']", *self.sets()]
                if self.call(f"{name}.json", words, self.left()) == 0:
                    (self.work / f"{name}.done").touch()

    def sets(self) -> list[str]:
        """The --set options that were given, as words."""
        return [word for text in self.given.sets for word in ("--set", text)]

    def train(self) -> None:
        """The suite, its pairs by priority; `kdbench run --minutes` ends in time and goes on with the next call."""
        pairs = [pair.strip() for pair in self.given.pairs.split(",")]
        words = ["-m", "bench", "run", self.given.suite, "--methods", self.given.methods, "--seeds", self.given.seeds]
        words += ["--set", f"pairs={pairs}", *self.sets(), "--device", self.given.device, "--no-report"]
        words += ["--results", str(self.work / "results"), "--minutes", f"{(self.left() - 5) / 60:.2f}"]
        self.call("train.txt", words, self.left() + 5)

    def carry_home(self) -> None:
        """Logs as they are, and the results with their checkpoints in parts: `kdbench import` reads them, and so does
        the next borrowed machine from build/gpu."""
        shutil.copytree(self.work / "logs", self.out / "logs", dirs_exist_ok=True)
        about = {"python": platform.python_version(), "platform": platform.platform(), "argv": sys.argv[1:]}
        (self.out / "machine.json").write_text(json.dumps(about, indent=1))
        if (self.work / "results").exists():
            parts = write_parts(self.work / "results", self.out, "result")
            print(f"gpu_job: {len(parts)} parts of results in {self.out}; at home: kdbench import {self.out}")


if __name__ == "__main__":
    raise SystemExit(main())
