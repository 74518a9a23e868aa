"""Flower without sockets: a real strategy and real client apps in one process."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from invertigo.types import InvalidValueError

Config = Mapping[str, bool | int | float | str]
RUN, SERVER = 1, 1
"""Identities of the one run and of its server; nodes are numbered from SERVER + 1."""


class InProcessGrid(Grid):
    """Calls a client app for each message, one node after another, as SuperNodes would.

    Each node keeps its own state over the rounds; as in a real node, what an app that raised wrote into its state is
    lost, and the server gets an error reply. Messages are copied on their way, so nothing is shared.

    Args:
        app: what every node runs.
        nodes: how many there are.
        run_config: what `flwr run` and the app's `[tool.flwr.app.config]` would set.
        node_configs: what each `flower-supernode --node-config` would set; default: `partition-id`, `num-partitions`.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: int = 2,
        *,
        run_config: Config | None = None,
        node_configs: Sequence[Config] | None = None,
    ) -> None:
        if nodes < 1 or (node_configs is not None and len(node_configs) != nodes):
            given = "" if node_configs is None else f" and {len(node_configs)} node configurations"
            raise InvalidValueError(f"{nodes} nodes{given} were given; there must be one configuration for each.")
        _take_identity()
        self.app, self.run_config = app, dict(run_config or {})
        configs = node_configs or [{"partition-id": number, "num-partitions": nodes} for number in range(nodes)]
        self.contexts = {
            node: Context(RUN, node, dict(config), RecordDict(), dict(self.run_config))
            for node, config in enumerate(configs, SERVER + 1)
        }
        self.errors: list[tuple[int, Exception]] = []
        """Which node's app raised what, so far."""
        self._replies: dict[str, Message] = {}

    def serve(self, app: ServerApp) -> Context:
        """Run a server app against these nodes until it ends, and return its context."""
        context = Context(RUN, SERVER, {}, RecordDict(), dict(self.run_config))
        app(self, context)
        return context

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | int | None = None) -> Iterable[Message]:
        """Replies of all nodes; a timeout has no meaning here."""
        return list(self.pull_messages(self.push_messages(messages)))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let each message be answered at once."""
        names = []
        for message in messages:
            name = f"message-{len(self._replies) + len(names)}-{time.monotonic_ns()}"
            names.append(name)
            self._replies[name] = self._answer(message, name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self.contexts)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | int | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        """There is one run only, which needs no setting."""
        raise InvalidValueError("An InProcessGrid holds one run of its own; pass run_config= when it is built.")

    @property
    def run(self) -> Run:
        """The one run."""
        return Run.create_empty(RUN)

    def _answer(self, message: Message, name: str) -> Message:
        node = message.metadata.dst_node_id
        asked = _delivered(message, name)
        if node not in self.contexts:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, f"There is no node {node}."), reply_to=asked)
        context = copy.deepcopy(self.contexts[node])
        try:
            reply = self.app(asked, context)
        except Exception as error:  # as a SuperNode does: the server learns that the app failed, and goes on
            self.errors.append((node, error))
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=asked)
        self.contexts[node] = context
        return _copied(reply)


def _delivered(message: Message, name: str) -> Message:
    """A copy of the message with the identifier that a SuperLink would give it."""
    known = message.metadata
    metadata = Metadata(
        run_id=RUN,
        message_id=name,
        src_node_id=SERVER,
        dst_node_id=known.dst_node_id,
        reply_to_message_id="",
        group_id=known.group_id,
        created_at=time.time(),
        ttl=known.ttl,
        message_type=known.message_type,
        src_task_id=known.src_task_id,
        dst_task_id=known.dst_task_id,
    )
    return Message(copy.deepcopy(message.content), metadata=metadata)  # type: ignore[call-overload]


def _copied(reply: Message) -> Message:
    if reply.has_error():
        return reply
    reply.content = copy.deepcopy(reply.content)
    return reply


def _take_identity() -> None:
    """Messages ask the process who it is; Flower's own processes are told so when they start."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return  # older versions of Flower take the identity from the grid
    for field in ("run_id", "node_id", "task_id"):
        if getattr(TaskIdentity, f"_{field}") is None:
            setattr(TaskIdentity, field, RUN)
