"""A topic that notes what SNS has taken: the credit side of the demo's books."""

from collections.abc import Callable, Sequence

from worker.errors import EntryError
from worker.publisher import Topic
from worker.publisher.topic import Publication

__all__ = ["RecordedTopic"]


class RecordedTopic:
    """A `Topic` that tells `note` of every publication that the topic within has confirmed."""

    def __init__(self, topic: Topic, note: Callable[[Publication], None]) -> None:
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
                self._note(publication)
        return answers

    async def close(self) -> None:
        """Close the topic within."""
        await self._topic.close()
