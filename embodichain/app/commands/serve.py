"""`embodichain serve`: a checkpoint behind the policy protocol of docs/serving.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from embodichain.app.commands.checkpoints import TOKEN, add_mode_arguments, find_checkpoint, with_mode
from embodichain.app.settings import ConfigError, device_for
from embodichain.serving import PolicyServer, ServerConfig


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `serve`."""
    serve = commands.add_parser(
        "serve",
        help="a policy server: a checkpoint over websockets",
        description="Serve a checkpoint: chunks of actions over a websocket, /healthz and /timing over HTTP.",
    )
    serve.add_argument("checkpoint", help="runs/<name>/checkpoints/step_N, or runs/<name> for the latest")
    serve.add_argument("--port", type=int, default=8765, metavar="N", help="0: any free one (default 8765)")
    serve.add_argument("--host", default="127.0.0.1", help="another than loopback needs a token (default 127.0.0.1)")
    serve.add_argument("--token", default=os.environ.get(TOKEN, ""), help=f"demanded of clients (default: ${TOKEN})")
    add_mode_arguments(serve)
    serve.add_argument("--max-sessions", type=int, default=32, metavar="N", help="sessions at once (default 32)")
    serve.add_argument(
        "--session-idle-s", type=float, default=300.0, metavar="S", help="an idle session ends (default 300)"
    )
    serve.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads (default 1)")
    serve.add_argument("--gpu", action="store_true", help="the model on the GPU")
    serve.set_defaults(handler=_serve)


async def _until_told(server: PolicyServer) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def started() -> None:
        print(f"serving {server.info.name} (mode {server.info.mode}) on {server.url}; Ctrl-C stops", flush=True)

    await server.run(started, stop)
    print("stopped", flush=True)


def _serve(arguments: argparse.Namespace) -> int:
    import torch

    from embodichain.app.components import runtime_config
    from embodichain.app.serving import served

    folder, step, config = find_checkpoint(arguments.checkpoint)
    config = with_mode(config, arguments)
    if not 0 <= arguments.port < 2**16:
        raise ConfigError(f"--port={arguments.port}: expected 0 to 65535")
    for key in ("max_sessions", "session_idle_s", "threads"):
        if getattr(arguments, key) <= 0:
            raise ConfigError(f"--{key.replace('_', '-')}={getattr(arguments, key)}: expected more than 0")
    try:
        settings = ServerConfig(
            host=arguments.host,
            port=arguments.port,
            token=arguments.token,
            max_sessions=arguments.max_sessions,
            session_idle_s=arguments.session_idle_s,
        )
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    device = device_for(arguments.gpu, "--gpu")
    torch.set_num_threads(arguments.threads)
    try:
        info, make = served(config, folder.checkpoint(step), runtime_config(config), device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    server = PolicyServer(info, make, settings)

    try:
        asyncio.run(_until_told(server))
    except OSError as error:
        raise RuntimeError(f"--host={settings.host} --port={settings.port}: cannot listen there ({error})") from error
    return 0
