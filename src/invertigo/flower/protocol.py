"""What a message is for: training, evaluation, or a stage of secure aggregation in which nothing is trained."""

from __future__ import annotations

from flwr.app import Message, MessageType, RecordDict

SECAGG, STAGE, COLLECT, MASKED = "secaggplus_configs", "stage", "collect_masked_vectors", "masked_params"
"""Names of Flower's SecAgg+ in a message: its record, the stage, the one in which clients train, the masked update."""


def kind_of(message: Message) -> str:
    """Of "train.fast", "train"."""
    return message.metadata.message_type.split(".")[0]


def trains(message: Message) -> bool:
    """Whether it asks for an update."""
    return kind_of(message) == MessageType.TRAIN


def only_keys(message: Message) -> bool:
    """A stage of secure aggregation that deals with keys and shares: it brings no model."""
    return trains(message) and SECAGG in message.content.config_records and not has_arrays(message.content)


def of_secure_aggregation(message: Message) -> bool:
    """`secaggplus_mod` has not yet read this message: it takes the stage out of it."""
    return STAGE in message.content.config_records.get(SECAGG, {})


def masked(reply: Message) -> bool:
    """The update is in the reply, under a mask."""
    return MASKED in reply.content.config_records.get(SECAGG, {})


def has_arrays(content: RecordDict) -> bool:
    """Whether any array record holds something."""
    return any(len(record) for record in content.array_records.values())
