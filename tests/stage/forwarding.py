"""Passes TCP on from one address to another, each piece after a while: a network between two machines.

    python tests/stage/forwarding.py MILLISECONDS ADDRESS PORT...

What is said to a port of the address comes to the same port of loopback, and is answered the same way.
"""

import asyncio
import socket
import sys
from asyncio import StreamReader, StreamWriter

_SILENCE = {
    socket.TCP_KEEPIDLE: 20,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 5,
    socket.TCP_USER_TIMEOUT: 45_000,
}
"""When silence is taken for the end, as our sessions ask it of the server: who passes on has to know it too."""


async def main(delay: float, address: str, ports: list[int]) -> None:
    servers = [await _listen(address, port, delay) for port in ports]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(address: str, port: int, delay: float) -> asyncio.Server:
    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _SILENCE.items():
            accepted.setsockopt(socket.IPPROTO_TCP, option, value)
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, target_writer, delay), _pass(target_reader, writer, delay))

    return await asyncio.start_server(connected, address, port)


async def _pass(reader: StreamReader, writer: StreamWriter, delay: float) -> None:
    """Later, but not slower: what comes meanwhile is on its way as well."""
    loop = asyncio.get_running_loop()
    try:
        while piece := await reader.read(1 << 16):
            if delay:
                loop.call_later(delay, writer.write, piece)
            else:
                writer.write(piece)
                await writer.drain()
    except OSError:
        pass
    loop.call_later(delay, writer.close)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) / 1e3, sys.argv[2], [int(port) for port in sys.argv[3:]]))
