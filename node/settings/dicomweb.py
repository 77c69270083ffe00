"""What can be set of the node's DICOMweb services? Which systems may use them, and their limits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    field_serializer,
    model_validator,
)

from .connections import AETitle
from .destinations import check_token, write_secret

SHORTEST_TOKEN = 32
"""Characters that a token has at least; so nobody can guess one, however often it is tried."""


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SHORTEST_TOKEN:
        raise ValueError(f"a token has at least {SHORTEST_TOKEN} characters; make one with `openssl rand -hex 32`")
    return check_token(value)


class DicomWebClientSettings(BaseModel):
    """A system that uses the node's DICOMweb services."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: AETitle = Field(
        description="Its name in the log, on pages and in routing rules (`calling_ae`), in place of a calling AE title"
    )
    token: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        description="Bearer token, 32 characters or more; preferably set in a file or the environment"
    )
    store: bool = Field(True, description="It may send images (STOW-RS)")
    retrieve: bool = Field(False, description="It may search and fetch results of any patient (QIDO-RS, WADO-RS)")

    @field_serializer("token", when_used="json")
    def _secret(self, secret: SecretStr, info: SerializationInfo) -> str:
        return write_secret(secret, info)


class DicomWebSettings(BaseModel):
    """DICOMweb services of the node, at `/dicomweb` of the worklist page; without clients there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: dict[str, DicomWebClientSettings] = Field(
        {}, description="The systems that may use them; see the table below"
    )
    max_request_bytes: int = Field(
        17_179_869_184, ge=1_048_576, description="Largest request accepted, in bytes; it may hold many instances"
    )
    max_uploads: int = Field(8, ge=1, description="Maximum number of requests that are received at the same time")

    @model_validator(mode="after")
    def _one_token_each(self) -> Self:
        tokens = [client.token.get_secret_value() for client in self.clients.values()]
        if len(set(tokens)) < len(tokens):
            raise ValueError("two clients have the same token: give each its own")
        return self
