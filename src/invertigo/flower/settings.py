"""What may be set about the guard from outside the code, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from invertigo.flower.casts import CASTS, Casts
from invertigo.flower.sections import keys_of
from invertigo.types import ConfigurationError, Decision, Look, did_you_mean

RefuseAt = Literal["never", "block", "warn"]
STRICTNESS = {"never": 0, "block": 1, "warn": 2}


class GuardSettings(BaseModel):
    """The `guard.*` keys of a Flower run or node configuration.

    The run configuration comes from whoever starts the run, who may be the server that the guard is to watch: it can
    make the guard stricter, never milder. The node configuration (`flower-supernode --node-config`) is the client's
    own and has the last word.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, alias_generator=lambda name: name.replace("_", "-")
    )

    refuse_at: RefuseAt = "block"
    """Refuse a round that the inspector blocks, or also one it warns of (`warn`), or only write it down (`never`)."""
    tell_server: bool = False
    """Send the reason along with a refusal. It tells a malicious server what to avoid next time."""
    budget_block: float = Field(default=1e-5, gt=0, lt=1)
    """Probability that an honest server is ever blocked; more is stricter."""
    budget_warn: float = Field(default=1e-3, gt=0, lt=1)
    """Probability that an honest server ever raises a warning; more is stricter."""
    examples: int = Field(default=64, ge=1)
    """Examples of the client's own on which a model is examined."""
    looks: str = ""
    """Declared reasons for odd weights, separated by commas: zero_head, lora, pruned, tied, dirac, quantised."""

    casts: Casts = "float32"
    """What a change of dtype may cost: nothing (`lossless`), the digits beyond float32, or `any` rounding."""

    @property
    def declared_looks(self) -> frozenset[Look]:
        """The looks by name. Raises: ConfigurationError for an unknown one."""
        known = get_args(Look)
        named = [look.strip() for look in self.looks.split(",") if look.strip()]
        for look in named:
            if look not in known:
                raise ConfigurationError(
                    f"guard.looks names '{look}'.{did_you_mean(look, known)} Known: {', '.join(known)}."
                )
        return frozenset(named)  # type: ignore[arg-type]

    @property
    def allowed_casts(self) -> Casts | None:
        """What a change of dtype may cost; None: a model that is declared quantised stays as it is sent."""
        return None if "quantised" in self.declared_looks else self.casts

    def refuses(self, decision: Decision) -> bool:
        """Whether a round with this decision is refused."""
        return decision != "pass" and STRICTNESS[decision] <= STRICTNESS[self.refuse_at]

    def under(self, run: Mapping[str, Any], node: Mapping[str, Any]) -> tuple[GuardSettings, list[str]]:
        """These settings as a run and a node change them, and which keys of the run were not obeyed.

        Raises: ConfigurationError for a key or a value that is not known.
        """
        asked, own = keys_of(run, "guard"), keys_of(node, "guard")
        strict, ignored = dict(self.model_dump(by_alias=True)), []
        wanted = _validated(strict | asked)
        for key in asked:
            value = wanted.model_dump(by_alias=True)[key]
            if _milder(key, value, strict[key]) and key not in own:
                ignored.append(f"guard.{key}={value!r}")
            else:
                strict[key] = value
        return _validated(strict | own), ignored


def _milder(key: str, value: Any, than: Any) -> bool:
    if key == "refuse-at":
        return STRICTNESS[value] < STRICTNESS[than]
    if key == "casts":
        return CASTS.index(value) > CASTS.index(than)
    if key == "tell-server":
        return value and not than
    if key == "looks":
        return not set(value.split(",")) <= {*than.split(","), ""}
    return value < than


def _validated(values: Mapping[str, Any]) -> GuardSettings:
    try:
        settings = GuardSettings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        known = [name.replace("_", "-") for name in GuardSettings.model_fields]
        if key not in known:
            raise ConfigurationError(
                f"There is no setting guard.{key}.{did_you_mean(key, known)} Known: {', '.join(known)}."
            ) from error
        raise ConfigurationError(f"guard.{key} is {first['input']!r}: {first['msg']}.") from error
    if settings.budget_block > settings.budget_warn:
        raise ConfigurationError(
            f"guard.budget-block={settings.budget_block} is above guard.budget-warn={settings.budget_warn}: what is "
            "blocked must also be warned of. Raise the latter."
        )
    return settings
