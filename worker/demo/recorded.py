"""A topic that notes what SNS has taken: the credit side of the demo's books."""

from collections.abc import Callable, Mapping, Sequence

from worker.errors import EntryError
from worker.message import Attribute
from worker.publisher import Topic
from worker.publisher.topic import Publication

__all__ = ["RecordedTopic"]


Note = Callable[[str, str, Mapping[str, Attribute]], None]
"""Told of a topic, and of the body and the attributes of an event that was published there."""


class RecordedTopic:
    """A `Topic` that tells `note` of every publication that the topic within has confirmed."""

    def __init__(self, topic: Topic, note: Note) -> None:
        self._topic = topic
        self._note = note

    @property
    def name(self) -> str:
        """The bare name."""
        return self._topic.name

    async def open(self) -> None:
        """Open the topic within."""
        await self._topic.open()

    async def publish(self, publications: Sequence[Publication]) -> list[str | EntryError]:
        """Publish, and note what was taken."""
        answers = await self._topic.publish(publications)
        for publication, answer in zip(publications, answers, strict=True):
            if isinstance(answer, str):
                self._note(self.name, publication.body, publication.attributes)
        return answers

    async def close(self) -> None:
        """Close the topic within."""
        await self._topic.close()
