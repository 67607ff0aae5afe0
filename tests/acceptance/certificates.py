"""A certificate authority of a test's own, made by openssl, and TLS in front of a service that has none."""

import asyncio
import contextlib
import ssl
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 1 << 16
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """`file` is what those who trust it need."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self.file, self._key = self._folder / "ca.pem", self._folder / "ca.key"
        _openssl("req", "-x509", *KEY, "-keyout", self._key, "-out", self.file, "-subj", f"/CN={name}", "-days", "2")

    def certificate(self, name: str = "localhost", days: int = 2) -> tuple[Path, Path]:
        """A certificate for one DNS name, and its key; with days in the past it has expired."""
        stem = self._folder / f"{name}{days}"
        certificate, key, request = (stem.with_name(f"{stem.name}.{kind}") for kind in ("pem", "key", "csr"))
        if not certificate.exists():
            extension = stem.with_name(f"{stem.name}.ext")
            extension.write_text(f"subjectAltName = DNS:{name}\nbasicConstraints = CA:FALSE\n")
            _openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
            _openssl(
                "x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial",
                "-days", str(days), "-extfile", extension, "-out", certificate,
            )  # fmt: skip
        return certificate, key


class TlsFront:
    """Takes TLS and passes on what is in it; at `port` on localhost."""

    def __init__(self, url: str, certificate: tuple[Path, Path]) -> None:
        address = urlsplit(url)
        self._target = (address.hostname, address.port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._loop = asyncio.new_event_loop()
        # A client that refuses our certificate is what some tests are about.
        self._loop.set_exception_handler(lambda *_: None)
        server = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = self._loop.run_until_complete(server)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            from_service, to_service = await asyncio.open_connection(*self._target)
            await asyncio.gather(_pass(reader, to_service), _pass(from_service, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
