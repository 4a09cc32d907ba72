"""What do our blobs cost over a plain copy, and does the thousandth round cost more than the first? Prints JSON.

    python benchmarks/transfers.py                     40 MB over a folder, SFTP and S3; 1,000 rounds over a folder
    python benchmarks/transfers.py --megabytes 4 --rounds 100 --kinds folder

**transfers**: so many MB (10^6 bytes) are sent and received by a blob channel: cut into parts, encrypted, put; fetched,
checked, decrypted, flushed to disk. Beside it the same bytes by the same kind of store, put and read as one object. The
least of ``--times``, alternating, and the CPU seconds of this process for each. ``cryptography_s`` is what encrypting,
verifying and decrypting them takes alone: a plain copy has none of it. ``ratio`` is ours over the plain copy; ``met``
says whether it is within 1.3, or, in a local folder, whether ours takes at most 0.5 s for 40 MB. Servers run on
loopback, on the same cores; ``--line-mbit 100`` puts a line of that speed before them, as between hospitals.
``--fsspec PYTHON`` copies the same file there and back by fsspec's own backends too (``put_file``, ``get_file``),
which fedpriv does not install: ``python -m venv plain && plain/bin/pip install fsspec s3fs paramiko``, then
``--fsspec plain/bin/python``. ``fsspec_s`` is what these take, ``ratio_to_fsspec`` ours over it.

**rounds**: two real syft sessions over a folder. In each round the researcher submits a job, the domain takes and
answers it, the researcher takes the answer; then both ask once more for news, of which there are none. Reported for
each tenth of the rounds: milliseconds (median) of the round, of its CPU time, and of the idle asking; requests to the
store (median); and how many objects lie there at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

from syft_job.models import JobStatus

from fedpriv.experiments.crosscloud.line import Line
from fedpriv.experiments.crosscloud.s3_server import S3Server
from fedpriv.experiments.crosscloud.sftp_server import SftpServer
from fedpriv.transport import OwnerSession, ResearcherSession, SessionSettings, Store, create_transport_keys

OWNER, RESEARCHER = "micu@north.example", "ada@west.example"
WANTED_RATIO, WANTED_FOLDER_S_PER_MB = 1.3, 0.5 / 40


def sessions(root: Path, url: str) -> tuple[OwnerSession, ResearcherSession]:
    """Connect a domain and a researcher over a store."""
    keys = {email: create_transport_keys(email, root / email / "keys.json") for email in (OWNER, RESEARCHER)}

    def settings(email: str, peer: str) -> SessionSettings:
        folder = root / email
        return SessionSettings(
            email=email, store_url=url, folder=folder, keys_path=folder / "keys.json", pins={peer: keys[peer]}
        )

    owner, researcher = OwnerSession(settings(OWNER, RESEARCHER)), ResearcherSession(settings(RESEARCHER, OWNER))
    researcher.connect(OWNER)
    owner.poll()
    if not researcher.connect(OWNER):
        raise SystemExit("the two did not connect")
    return owner, researcher


@contextlib.contextmanager
def served(kind: str, root: Path, line_mbit: float = float("inf")) -> Iterator[str]:
    """Give the address of a store of a kind."""
    if kind == "folder":
        yield str(root / "store")
        return
    sftp = kind == "sftp"
    server = SftpServer(folder=root / "server", root=root / "served") if sftp else S3Server(folder=root / "s3")
    with server:
        if isinstance(server, S3Server):
            os.environ.update(server.credentials())
        if line_mbit == float("inf"):
            yield server.url
            return
        with Line(behind=server.port, mbit_per_s=line_mbit) as line:
            yield server.url.replace(f":{server.port}", f":{line.port}")


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Taken:
    """Wall clock and CPU seconds of what is done again and again, by name; the least counts."""

    def __init__(self) -> None:
        self.least: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        started, cpu = time.perf_counter(), time.process_time()
        yield
        for unit, value in (("s", time.perf_counter() - started), ("cpu_s", time.process_time() - cpu)):
            self.least[f"{name}_{unit}"] = min(self.least.get(f"{name}_{unit}", value), value)


_FSSPEC = """
import json, sys, time, fsspec
asked = json.loads(sys.stdin.readline())
files = fsspec.filesystem(asked["kind"], **asked["options"])
for _ in sys.stdin:
    took = []
    for name, source, target in (("put_file", "file", "there"), ("get_file", "there", "back")):
        started = time.perf_counter()
        getattr(files, name)(asked[source], asked[target])
        took.append(time.perf_counter() - started)
    print(json.dumps(took), flush=True)
"""


class Fsspec:
    """fsspec's own backend, in an interpreter that has it: a file there and back each time it is asked."""

    def __init__(self, python: str, kind: str, url: str, file: Path) -> None:
        address = urlsplit(url)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        options: dict[str, Any] = {}
        if kind == "sftp":
            host = {"host": address.hostname, "port": address.port, "username": address.username}
            options, there = host | {"key_filename": asked["key"]}, f"{address.path}/plain"
        elif kind == "s3":
            key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            options = {"endpoint_url": asked["endpoint_url"], "key": key, "secret": secret}
            there = f"{address.netloc}/plain"
        else:
            kind, there = "file", f"{url}/plain"
        self._file, self._back, self.least = file, Path(f"{file}.back"), [float("inf"), float("inf")]
        process = subprocess.Popen([python, "-c", _FSSPEC], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process, self._asked, self._answers = (
            process,
            cast(IO[bytes], process.stdin),
            cast(IO[bytes], process.stdout),
        )
        job = {"kind": kind, "options": options, "file": str(file), "there": there, "back": str(self._back)}
        self._say(json.dumps(job))

    def _say(self, line: str) -> None:
        self._asked.write(line.encode() + b"\n")
        self._asked.flush()

    def copy(self) -> None:
        """Copy once; the least seconds of putting and of getting are kept."""
        self._say("once")
        answer = self._answers.readline()
        if not answer:
            raise SystemExit("fsspec's own backend did not do it: what it said stands above")
        if self._back.read_bytes() != self._file.read_bytes():
            raise SystemExit("other bytes came back from fsspec's own backend")
        self._back.unlink()
        self.least = [min(pair) for pair in zip(self.least, json.loads(answer), strict=True)]

    def close(self) -> None:
        self._process.communicate()


def transfer(kind: str, megabytes: int, times: int, line_mbit: float, fsspec_python: str | None) -> dict[str, Any]:
    """Measure one kind of store."""
    data = os.urandom(megabytes * 10**6)
    taken = Taken()
    with tempfile.TemporaryDirectory() as folder, served(kind, Path(folder), line_mbit) as url:
        root = Path(folder)
        owner, researcher = sessions(root, url)
        store = Store.from_url(url)
        source, target = root / "update", root / "got"
        source.write_bytes(data)
        stock = Fsspec(fsspec_python, kind, url, source) if fsspec_python else None
        for number in range(times):
            with taken.of("send"):
                reference = owner.blobs.send(RESEARCHER, f"update-{number}", source)
            with taken.of("receive"):
                researcher.blobs.receive(OWNER, reference, target)
            with taken.of("put"):
                store.put(f"{OWNER}/plain-{number}", data)
            with taken.of("get"):
                store.get(f"{OWNER}/plain-{number}", max_bytes=len(data))
            if target.read_bytes() != data:
                raise SystemExit("other bytes came back")
            owner.blobs.remove(RESEARCHER, f"update-{number}")
            store.delete(f"{OWNER}/plain-{number}")
            target.unlink()
            if stock:
                stock.copy()
        if stock:
            stock.close()
        crypto = min(cryptography(owner, researcher, data) for _ in range(times))
    least = {name: round(value, 4) for name, value in taken.least.items()}
    ours, plain = least["send_s"] + least["receive_s"], least["put_s"] + least["get_s"]
    within = ours <= WANTED_FOLDER_S_PER_MB * megabytes if kind == "folder" else False
    return {
        "kind": kind,
        "megabytes": megabytes,
        **({} if line_mbit == float("inf") or kind == "folder" else {"line_mbit": line_mbit}),
        **least,
        "ours_s": round(ours, 4),
        "plain_s": round(plain, 4),
        "cryptography_s": round(crypto, 4),
        "ratio": round(ours / plain, 3),
        **(
            {
                "fsspec_put_s": round(stock.least[0], 4),
                "fsspec_get_s": round(stock.least[1], 4),
                "fsspec_s": round(sum(stock.least), 4),
                "ratio_to_fsspec": round(ours / sum(stock.least), 3),
            }
            if stock
            else {}
        ),
        "met": within or ours <= WANTED_RATIO * plain,
    }


def cryptography(owner: OwnerSession, researcher: ResearcherSession, data: bytes) -> float:
    """Return the seconds that encrypting, verifying and decrypting take, in parts of 4 MiB, without any store."""
    sender, taker = (session.client.peer_manager.peer_store for session in (owner, researcher))
    started = time.perf_counter()
    for at in range(0, len(data), 4 * 2**20):
        envelope = sender.encrypt(RESEARCHER, data[at : at + 4 * 2**20])
        taker.verify_message(OWNER, envelope)
        taker.decrypt(OWNER, envelope)
    return time.perf_counter() - started


class Counted:
    """Counts what a store is asked."""

    def __init__(self, files: Any) -> None:
        self._files, self.requests = files, 0

    def __getattr__(self, name: str) -> Any:
        if name in ("write", "read", "list", "look", "remove"):
            self.requests += 1
        return getattr(self._files, name)


def rounds(count: int) -> list[dict[str, Any]]:
    """Measure so many rounds of one job each; return one row for each tenth of them."""
    with tempfile.TemporaryDirectory() as folder:
        owner, researcher = sessions(Path(folder), str(Path(folder) / "store"))
        counted = []
        for session in (owner, researcher):
            counted.append(Counted(session.connection.store._files))
            session.connection.store._files = counted[-1]
        rows: list[tuple[float, float, float, int]] = []
        for number in range(count):
            before = sum(files.requests for files in counted)
            cpu = time.process_time()
            busy = seconds(lambda name=f"ticket-{number:05d}": one_round(owner, researcher, name))
            cpu = time.process_time() - cpu
            idle = seconds(lambda: (owner.poll(), researcher.poll()))
            rows.append((busy, cpu, idle, sum(files.requests for files in counted) - before))
        on_store = sum(path.is_file() for path in (Path(folder) / "store").rglob("*"))
    tenth = max(1, count // 10)
    return [
        {
            "rounds": f"{first + 1}-{min(first + tenth, count)}",
            "round_ms": round(1e3 * statistics.median(row[0] for row in rows[first : first + tenth]), 2),
            "cpu_ms": round(1e3 * statistics.median(row[1] for row in rows[first : first + tenth]), 2),
            "idle_ms": round(1e3 * statistics.median(row[2] for row in rows[first : first + tenth]), 2),
            "requests": statistics.median(row[3] for row in rows[first : first + tenth]),
            **({"objects_on_store": on_store} if first + tenth >= count else {}),
        }
        for first in range(0, count, tenth)
    ]


def one_round(owner: OwnerSession, researcher: ResearcherSession, name: str) -> None:
    """Ask, answer, and take the answer."""
    researcher.submit(OWNER, name, {"ticket.json": b'{"round": 1}'}, entrypoint="ticket.json")
    owner.receive()
    job = next(job for job in owner.jobs() if job.job_name == name)
    owner.answer(job, JobStatus.DONE, {"result.json": b"{}"})
    owner.publish()
    researcher.poll()
    if researcher.output(OWNER, name, "result.json") != b"{}":
        raise SystemExit(f"{name} was not answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--line-mbit", type=float, default=float("inf"))
    parser.add_argument("--fsspec", metavar="PYTHON", help="an interpreter with fsspec, s3fs and paramiko")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--kinds", nargs="*", default=["folder", "sftp", "s3"], choices=["folder", "sftp", "s3"])
    options = parser.parse_args()
    report = {
        "transfers": [
            transfer(kind, options.megabytes, options.times, options.line_mbit, options.fsspec)
            for kind in options.kinds
        ],
        "rounds": rounds(options.rounds) if options.rounds else [],
    }
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
