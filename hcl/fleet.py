"""Many inventories: files, directories and archives of them, judged as they come, on several processes or a cluster."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from hcl.errors import BadInventory, HclError, NoCluster
from hcl.judging import Judge
from hcl.readers import MOST, content, read, read_bytes
from hcl.reading import NO_SITE, installed
from hcl.report import MachineReport, Profile
from hcl.rules import Exclusion, parse_overrides
from hcl.site import Site
from hcl.summary import Failure
from hcl.verdict import Engine

#: Inventories that a process is given at a time, and how many such bundles each has waiting.
BUNDLE, WAITING = 64, 3
#: Seconds within which a cluster has to answer.
PATIENCE = 30.0
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


class Terms(NamedTuple):
    """How inventories are judged; a process makes its judge of this."""

    kernel: str | None = None
    profile: Profile = Profile.DEFAULT
    rules: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    site: Site = NO_SITE
    engine: Engine | None = None

    def judge(self) -> Judge:
        """The judge. HclError when the terms say nothing."""
        from hcl.console import kernel as kernels

        release, modules = kernels.find(self.kernel)
        return Judge(
            installed(self.site),
            release,
            modules,
            profile=self.profile,
            exclusions=[Exclusion.parse(rule) for rule in self.rules],
            overrides=parse_overrides(self.overrides),
            engine=self.engine,
        )


class Source(NamedTuple):
    """An inventory that was found: its name in errors, and its content; of a ``/sys`` tree its directory."""

    place: str
    content: bytes | Path


# ---- finding them ----


def sources(paths: Iterable[Path]) -> Iterator[Source | Failure]:
    """The inventories in these files, directories and archives of files, and ``/sys`` trees, in the order of names."""
    for path in paths:
        if path.is_dir():
            yield from _below(path)
        elif path.name.endswith(_ARCHIVES):
            yield from _guarded(partial(_members, path), path)
        else:
            yield from _guarded(partial(_file, path), path)


def _file(path: Path) -> list[Source]:
    return [Source(str(path), content(path))]


def _guarded(find: Callable[[], Iterable[Source]], path: Path) -> Iterator[Source | Failure]:
    try:
        yield from find()
    except HclError as error:
        yield Failure(error.what, error.where, error.remedy)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        yield Failure(f"cannot read the archive: {error}", str(path), "")


def _below(directory: Path) -> Iterator[Source | Failure]:
    if (directory / "bus").is_dir() or (directory / "sys" / "bus").is_dir():
        yield Source(str(directory), directory)
        return
    for path in sorted(directory.iterdir()):
        if not path.name.startswith("."):
            yield from sources([path])


def _members(path: Path) -> Iterator[Source]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    _check_size(info.file_size, f"{path}:{info.filename}")
                    yield Source(f"{path}:{info.filename}", archive.read(info))
        return
    with tarfile.open(path, "r:*") as stream:
        for member in stream:
            file = stream.extractfile(member) if member.isfile() else None
            if file:
                _check_size(member.size, f"{path}:{member.name}")
                yield Source(f"{path}:{member.name}", file.read())


def _check_size(size: int, where: str) -> None:
    if size > MOST:
        raise BadInventory(f"more than {MOST >> 20} MB", where=where, remedy="pack inventories only")


# ---- judging them ----


def judge_one(judge: Judge, source: Source) -> MachineReport | Failure:
    """The verdict on an inventory, or why there is none."""
    try:
        if isinstance(source.content, Path):
            return judge.machine(read(source.content))
        return judge.machine(read_bytes(source.content, source.place))
    except HclError as error:
        return Failure(error.what, error.where, error.remedy)


_judge = cache(Terms.judge)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[MachineReport | tuple[str, str, str]])


def judge_bundle(terms: Terms, bundle: list[Source]) -> bytes:
    """What a process of the pool does: judge inventories; reports and failures in one piece of msgpack."""
    judge = _judge(terms)
    found = (judge_one(judge, source) for source in bundle)
    return _ENCODER.encode(
        [msgspec.structs.astuple(each) if isinstance(each, Failure) else each for each in found]
    )


class Future(Protocol):
    """What both pools answer with."""

    def result(self) -> Any:
        """Wait for it."""


class Pool(Protocol):
    """Processes of this machine, or a cluster."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future:
        """Have one of them do it."""


def judged(
    terms: Terms, found: Iterable[Source | Failure], cluster: str | None = None
) -> Iterator[MachineReport | Failure]:
    """The verdicts on inventories, in their order. Few are judged here; many by several processes, or by the cluster.

    ``cluster`` is the address of a Dask scheduler, whose workers have this package and the kernel's modules. NoCluster.
    """
    stream = iter(found)
    first = list(islice(stream, BUNDLE))
    if len(first) < BUNDLE and cluster is None:
        judge = terms.judge()
        for each in first:
            yield each if isinstance(each, Failure) else judge_one(judge, each)
        return
    terms.judge()  # what is wrong with the terms is said here, and what the kernel cache lacks is made once
    with ExitStack() as stack:
        pool, workers = stack.enter_context(_dask(cluster) if cluster else _processes())
        waiting: deque[tuple[list[Source | Failure], Future]] = deque()
        stream = chain(first, stream)
        while bundle := list(islice(stream, BUNDLE)):
            work = [each for each in bundle if isinstance(each, Source)]
            waiting.append((bundle, pool.submit(judge_bundle, terms, work)))
            if len(waiting) >= workers * WAITING:
                yield from _collected(*waiting.popleft())
        while waiting:
            yield from _collected(*waiting.popleft())


def _collected(bundle: list[Source | Failure], future: Future) -> Iterator[MachineReport | Failure]:
    answers = iter(_DECODER.decode(future.result()))
    for each in bundle:
        answer = each if isinstance(each, Failure) else next(answers)
        yield Failure(*answer) if isinstance(answer, tuple) else answer


@contextmanager
def _processes() -> Iterator[tuple[Pool, int]]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        try:
            yield pool, workers
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _dask(address: str) -> Iterator[tuple[Pool, int]]:
    try:
        client_of: Any = import_module("distributed").Client
    except ImportError as error:
        raise NoCluster("Dask is missing", remedy="pip install 'vmklinux[dask]'") from error
    try:
        client = client_of(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise NoCluster(
            f"no Dask scheduler answers: {error}", where=address, remedy="dask scheduler starts one"
        ) from error
    with client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise NoCluster(
                "the Dask cluster has no workers", where=address, remedy="dask worker ADDRESS starts one"
            )
        yield client, workers * 2
