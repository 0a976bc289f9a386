"""What was remarked on the prompts of a trace, as notes of its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..records import SequenceRecord


class PromptRemarks:
    """The remarks on the records that went by, each once, with how many prompts it is true of."""

    def __init__(self) -> None:
        self._prompts: set[int] = set()
        self._of_remark: dict[str, set[int]] = {}

    def watch(self, records: Iterable[SequenceRecord]) -> Iterator[SequenceRecord]:
        """The same records."""
        for record in records:
            self._prompts.add(record.prompt_id)
            for remark in record.prompt_remarks:
                self._of_remark.setdefault(remark, set()).add(record.prompt_id)
            yield record

    @property
    def notes(self) -> list[str]:
        total = len(self._prompts)
        return [
            f"{len(ids)} of {total} prompts, the first of them prompt {min(ids)}: {remark}"
            for remark, ids in self._of_remark.items()
        ]
