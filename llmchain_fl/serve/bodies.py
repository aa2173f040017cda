"""What a request may hold, by OpenAI's names. A field that is not served is refused by its name, never ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmchain_fl.serve import refusals

Text = Annotated[str, Field(min_length=1)]
Label = Annotated[str, Field(max_length=200)]


class Body(BaseModel):
    """Unknown fields are refused; numbers are numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    model: Label = ""
    """`name@version`, or a name; empty: the tenant's first."""

    def texts(self) -> list[str]:
        """What is computed."""
        raise NotImplementedError


class Inputs(Body):
    """Texts to be computed."""

    input: Text | list[Text]

    def texts(self) -> list[str]:
        """One text, or several."""
        return [self.input] if isinstance(self.input, str) else self.input


class ClassifyBody(Inputs):
    """`POST /v1/classify`."""

    top: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many labels are shown; absent: 3, or all where a text may have several."""


class ScoreBody(Inputs):
    """`POST /v1/score`."""

    second: Text | list[Text] | None = None
    """Of a model over two texts: as many as there are inputs."""

    def records(self) -> list[dict[str, str]]:
        """What each number is for."""
        texts = self.texts()
        if self.second is None:
            return [{"text": text} for text in texts]
        others = [self.second] if isinstance(self.second, str) else self.second
        if len(others) != len(texts):
            raise refusals.bad("second", "as many texts as there are inputs")
        return [{"text": one, "text2": other} for one, other in zip(texts, others, strict=True)]


class AnswerBody(Body):
    """`POST /v1/answer`."""

    question: Text
    context: Text | None = None
    """The text that holds the answer; without it public passages of the server are looked through."""
    passages: Annotated[int, Field(ge=1, le=16)] = 3
    """How many of them."""

    def texts(self) -> list[str]:
        """The question."""
        return [self.question]


class RankBody(Body):
    """`POST /v1/rank`."""

    query: Text
    candidates: Annotated[list[Text], Field(min_length=1)]
    label: Label = ""
    """Of a model over pairs: whose probability is the score; empty: its first label."""
    top: Annotated[int, Field(ge=1, le=4096)] | None = None
    """How many are shown; absent: all."""

    def texts(self) -> list[str]:
        """The query and the candidates."""
        return [self.query, *self.candidates]


class EmbeddingsBody(Inputs):
    """`POST /v1/embeddings`."""

    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: Label | None = None
    """Taken and not used: feedback names persons."""


class StreamOptions(BaseModel):
    """Of a stream."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False


class WriteBody(Body):
    """What completions and chat have in common."""

    max_tokens: Annotated[int, Field(ge=1, le=65536)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0: always the most probable token (OpenAI's default is 1)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    user: Label | None = None
    """Taken and not used: feedback names persons."""

    def stops(self) -> tuple[str, ...]:
        """Sequences at which the text ends."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def most(self) -> int | None:
        """Tokens that may be written."""
        return self.max_tokens


class CompletionBody(WriteBody):
    """`POST /v1/completions`."""

    prompt: Text

    def texts(self) -> list[str]:
        """The prompt."""
        return [self.prompt]


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(WriteBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=65536)] | None = None

    def texts(self) -> list[str]:
        """All turns as one: bounds hold for their sum."""
        return ["".join(message.content for message in self.messages)]

    def most(self) -> int | None:
        """Tokens that may be written."""
        return self.max_completion_tokens or self.max_tokens


class FeedbackBody(BaseModel):
    """`POST /v1/feedback`: what a person says of one answer. Input and output are sent again, with their receipt."""

    model_config = ConfigDict(extra="forbid", strict=True)
    request_id: Annotated[str, Field(pattern=r"^req-[0-9a-f]{24}$")]
    model: Label
    receipt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    input: Text
    """What was asked; of a dialogue the JSON text of its messages."""
    output: str
    kind: Literal["up", "down", "correct", "choose"]
    correction: str = ""
    """The right answer, with `correct` and `choose`; of several labels their JSON list."""
    person: Label = ""
    """Whose feedback this is, spelled as in the training records; where the token is not a person's own."""


class ConsentBody(BaseModel):
    """`POST /v1/consent`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    person: Label = ""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Of the text that the person has read."""
    scope: Literal["train", "monitor"]
    given: bool
    """False: withdrawn; every row of this person is deleted."""
