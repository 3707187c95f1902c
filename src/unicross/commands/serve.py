"""`unicross serve`: the HTTP API and the web page over a store."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from typing import Annotated

import typer

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    store: Annotated[
        str, typer.Argument(help="The store: a folder, http://host:port/collection or FILE.db/collection.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all networks of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: one that is free.")
    ] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="UNICROSS_API_KEY", help="Answer only with this key (header X-API-Key)."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="Answer only with a key of this file, NAME KEY a line; it may change meanwhile."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name under which it may be asked, besides localhost, --host, this machine's name and "
            "IP addresses."
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(help="Path below which a proxy shows it, such as /photos."),
    ] = "",
    max_upload_mb: Annotated[float, typer.Option(help="Largest picture taken, in megabytes.")] = 20,
    max_megapixels: Annotated[float, typer.Option(help="Largest picture taken, in megapixels.")] = 50,
    timeout: Annotated[float, typer.Option(help="Longest time for an answer, in seconds.")] = 20,
    model: Annotated[Path | None, typer.Option(help="The model, where it is no longer at its place.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
) -> None:
    """Serve a store over HTTP, with a web page to search it.

    By default only this machine can reach it. Anybody who can may see the indexed pictures: give an
    --api-key before opening it to a network.
    """
    from unicross.errors import StoreError

    try:
        from unicross.serve.app import create_app
        from unicross.serve.connections import run
        from unicross.serve.service import Settings
    except ImportError as error:
        raise StoreError(f"serving needs more packages ({error}): pip install 'unicross[serve]'") from error
    from unicross.search import open_model
    from unicross.store import open_store

    own = () if host in LOOPBACK else (socket.gethostname(), socket.getfqdn())
    settings = Settings(
        hosts=tuple(name.lower() for name in (*LOOPBACK[:2], "[::1]", host, *own, *(allow_host or ()))),
        api_key=api_key or None,
        keys=keys,
        root_path=_checked(root_path),
        max_upload_bytes=int(max_upload_mb * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        timeout_s=timeout,
    )
    source = open_store(store, in_memory=True)
    app = create_app(open_model(source, model, device), source, settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StoreError(f"cannot listen on {host}, port {port}: {error}: give another --port") from error
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"{store} at http://{shown}:{listening.getsockname()[1]} (Ctrl+C stops)", err=True)
    if host not in LOOPBACK and not (api_key or keys):
        typer.echo(
            f"warning: whoever reaches {shown} may search this store and see its pictures: give --keys "
            f"FILE or "
            "--api-key, or leave --host out",
            err=True,
        )
    app.state.service.start()
    with listening, contextlib.suppress(KeyboardInterrupt):
        run(app, [listening])


def _checked(root_path: str) -> str:
    """The path without a slash at its end. Raises BadParameter."""
    root_path = root_path.rstrip("/")
    if root_path and not re.fullmatch(r"(/[^/?#\s]+)+", root_path):
        raise typer.BadParameter(f"--root-path {root_path}: write it as /photos")
    return root_path
