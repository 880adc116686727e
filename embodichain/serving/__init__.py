"""Policies over the network: a server for ours, a client for anybody's."""

from embodichain.serving.client import RemotePolicy
from embodichain.serving.protocol import PolicyInfo, ProtocolError
from embodichain.serving.server import PolicyServer, ServerConfig

__all__ = ["PolicyInfo", "PolicyServer", "ProtocolError", "RemotePolicy", "ServerConfig"]
