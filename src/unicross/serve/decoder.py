"""The process in which the server decodes: `python -m unicross.serve.decoder MEMORY NICE`.

Jobs come on standard input and answers go to standard output, each a line of JSON and then bytes. The line
tells their number. Nothing else passes between the two, so that a decoder which a picture took over can lie
about that picture and do no more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from unicross.data.decoding import ImageError, decode, image_kind
from unicross.data.images import as_jpeg, reduced, thumbnail
from unicross.reading import LARGEST_PICTURE
from unicross.serve.protocol import MEDIA_TYPES, SHOWN, receive, send

Answer = tuple[dict[str, Any], bytes]


def main(memory: int, niceness: int) -> None:
    """Answer until standard input ends; `memory` in bytes, beyond what an idle process takes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    limit_memory(memory)
    if hasattr(os, "nice"):
        os.nice(niceness)
    serve(sys.stdin.buffer, answers)


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Say that it is ready, then answer one job after another."""
    send(answers, {}, b"")
    while (job := receive(jobs, LARGEST_PICTURE)) is not None:
        wanted, data = job
        try:
            answer, body = _JOBS[wanted["do"]](data, wanted)
        except ImageError as error:
            answer, body = {"fault": error.fault, "reason": error.reason}, b""
        except MemoryError:
            answer, body = {"fault": "too large", "reason": "it needs too much memory"}, b""
        send(answers, answer, body)


def limit_memory(size: int) -> None:
    """Let this process take so many bytes more than it has, where the system can do that."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + size, now + size))
    except (ImportError, OSError, ValueError):
        return


def _upload(data: bytes, wanted: dict[str, Any]) -> Answer:
    side = wanted["at_least"]
    image = decode(data, "the upload", side, kinds=tuple(MEDIA_TYPES), max_pixels=wanted["max_pixels"])
    if side is not None:
        image = reduced(image, side)
    return {"size": image.size}, image.tobytes()


def _thumbnail(data: bytes, wanted: dict[str, Any]) -> Answer:
    side = wanted["side"]
    return {}, thumbnail(decode(data, "the picture", side), (side, side), cover=True)


def _original(data: bytes, wanted: dict[str, Any]) -> Answer:
    kind = image_kind(data)
    if kind in SHOWN and not wanted["again"]:
        return {"kind": kind}, b""
    return {"kind": "JPEG"}, as_jpeg(decode(data, "the picture"))


_JOBS: dict[str, Callable[[bytes, dict[str, Any]], Answer]] = {
    "upload": _upload,
    "thumbnail": _thumbnail,
    "original": _original,
}

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
