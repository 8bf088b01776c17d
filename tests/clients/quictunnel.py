"""MQTT over QUIC for clients that know sockets: aioquic, an implementation that is none of ours, carries
the bytes of a socket on the one stream of a QUIC connection."""

import asyncio
import socket
import ssl
import threading

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated, HandshakeCompleted, ProtocolNegotiated, StreamDataReceived, StreamReset,
)


class Refused(Exception):
    """The connection has ended; with QUIC's error code and reason."""

    def __init__(self, code, reason):
        super().__init__(f"{code:#x}: {reason}")
        self.code, self.reason = code, reason


class _Protocol(QuicConnectionProtocol):
    def __init__(self, tunnel, connection):
        super().__init__(connection)
        self.tunnel = tunnel

    def datagram_received(self, data, address):
        """Sees what aioquic leaves unseen: a stateless reset [RFC 9000 section 10.3]."""
        known = [self._quic._peer_cid, *self._quic._peer_cid_available]
        if data[0] & 0x80 == 0 and data[-16:] in [id.stateless_reset_token for id in known]:
            self.tunnel.received(b"", True)
        super().datagram_received(data, address)

    def quic_event_received(self, event):
        tunnel = self.tunnel
        match event:
            case ProtocolNegotiated(alpn_protocol=name):
                tunnel.alpn = name
            case HandshakeCompleted(early_data_accepted=early, session_resumed=resumed):
                tunnel.early_data_accepted, tunnel.session_resumed = early, resumed
                tunnel.decided.set()
            case StreamDataReceived(data=data, end_stream=ended):
                tunnel.received(data, ended)
            case StreamReset():
                tunnel.received(b"", True)
            case ConnectionTerminated(error_code=code, reason_phrase=reason):
                tunnel.ended = Refused(code, reason)
                tunnel.decided.set()
                tunnel.received(b"", True)


class QuicTunnel:
    """A QUIC connection whose stream is `socket`."""

    def __init__(self, address, ca, certificate=None, name="localhost", alpn="mqtt", ticket=None, early=b"",
                 timeout=10):
        self.configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], server_name=name, cafile=ca, verify_mode=ssl.CERT_REQUIRED,
            session_ticket=ticket, idle_timeout=600,
        )
        if certificate:
            self.configuration.load_cert_chain(*certificate)
        self.address, self.early = address, early
        self.alpn = self.ended = None
        self.early_data_accepted = self.session_resumed = False
        self.decided = threading.Event()
        self.tickets, self.paths, self.done = [], [], False
        self.socket, self.inner = socket.socketpair()
        self.inner.setblocking(False)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        if not self.decided.wait(timeout):
            self.kill()
            raise TimeoutError("no handshake")
        if self.ended:
            error = self.ended
            self.kill()
            raise error

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._open())
        self.loop.run_forever()
        self.sending.cancel()
        for path in self.paths:
            path.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _open(self):
        connection = QuicConnection(configuration=self.configuration, session_ticket_handler=self.tickets.append)
        self.protocol = _Protocol(self, connection)
        await self._path()
        self.stream = connection.get_next_available_stream_id()
        if self.early:
            connection.send_stream_data(self.stream, self.early)
        self.protocol.connect(("::ffff:" + self.address[0], self.address[1], 0, 0))
        self.sending = self.loop.create_task(self._send())

    async def _path(self):
        """What is sent from now on comes from another port."""
        own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        own.bind(("::", 0, 0, 0))
        path, _ = await self.loop.create_datagram_endpoint(lambda: self.protocol, sock=own)
        self.paths.append(path)

    async def _send(self):
        while data := await self.loop.sock_recv(self.inner, 65536):
            self.protocol._quic.send_stream_data(self.stream, data)
            self.protocol.transmit()
        self.protocol._quic.send_stream_data(self.stream, b"", end_stream=True)
        self.protocol.transmit()

    def received(self, data, ended):
        # As much as tests read fits into a socket's buffer.
        if data and not self.done:
            self.inner.setblocking(True)
            self.inner.sendall(data)
            self.inner.setblocking(False)
        if ended and not self.done:
            self.done = True
            self.inner.shutdown(socket.SHUT_WR)

    def _within(self, coroutine, timeout=10):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def migrate(self, forget=True):
        """The client has another address from now on, as after a change of network or of a NAT."""
        async def migrate():
            await self._path()
            if forget:
                self.protocol.change_connection_id()
            await self.protocol.ping()

        self._within(migrate())

    def kill(self):
        """Ends without a word."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
        self.socket.close()
        self.inner.close()
