"""What the dialect `service` accepts: the fields it uses; all others are ignored, as by the known service."""

from pydantic import BaseModel, Field

from bridge_tasks.sandbox.envelope import Json
from bridge_tasks.sandbox.stamp_store import DEFAULT_NAMESPACE
from bridge_tasks.sandbox.stamping import TARGET_PROTOCOL, StampType


class StampOptions(BaseModel):
    stamp_type: StampType = "lightweight"


class StampRequest(BaseModel):
    content: str
    file_path: str | None = None
    options: StampOptions = Field(default_factory=StampOptions)
    metadata: Json | None = None
    protocol_version: str = "1.0"
    namespace: str | None = DEFAULT_NAMESPACE


class ValidateOptions(BaseModel):
    expected_hash: str | None = None


class ValidateRequest(BaseModel):
    content: str
    options: ValidateOptions = Field(default_factory=ValidateOptions)
    namespace: str | None = "default"


class BatchRequest(BaseModel):
    items: list[Json]
    options: StampOptions = Field(default_factory=StampOptions)
    protocol_version: str = "1.0"
    namespace: str = "default"


class ProtocolRequest(BaseModel):
    content: str
    target_protocol: str = TARGET_PROTOCOL
    validation_level: str = "strict"
    namespace: str = "default"
