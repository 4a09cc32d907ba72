"""What people are shown of a round, kept on disk: with it the round is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedpriv.aggregation import shares
from fedpriv.researcher.answers import mean_loss, mean_seconds, mean_train_loss, quality
from fedpriv.researcher.events import Event, RoundFinished
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import AggregateManifest, Result


class RoundSummary:
    """Puts together what is known of a round that was summed."""

    def __init__(self, folder: StudyFolder, emit: Callable[[Event], None]) -> None:
        self._folder, self._emit = folder, emit

    def keep(
        self,
        manifest: AggregateManifest,
        trained: Mapping[str, Result],
        sealed: Mapping[str, Result],
        prepared: Mapping[str, Result],
        seconds: Mapping[str, float],
    ) -> None:
        """Keep the summary of a round, and emit it.

        Parameters
        ----------
        trained, sealed, prepared : mapping of str to Result
            The answers to the train, the seal and the prepare tickets; the first two are the same where domains seal
            at once.
        seconds : mapping of str to float
            Of the round at the researcher.
        """
        number = manifest.round
        weights = {update.header.member: update.header.weight for update in manifest.updates}
        added = {email: trained[email] for email in weights if email in trained}
        # The first adapter was measured when the study was prepared; a buffered sum may hold an update of it later on.
        start = {e: prepared[e] if r.round == 1 and e in prepared else r for e, r in added.items()}
        parts = mean_seconds(trained)
        if sealed is not trained:
            apart = mean_seconds(sealed)
            parts = {name: parts.get(name, 0.0) + apart.get(name, 0.0) for name in sorted({*parts, *apart})}
        sizes = [update.container_bytes for update in manifest.updates]
        event = RoundFinished(
            study=manifest.study,
            round=number,
            attempt=manifest.attempt,
            train_loss=mean_train_loss(added.values()),
            heldout_loss=mean_loss(start),
            weights=shares(weights),
            bytes_up=round(sum(sizes) / len(sizes)),
            bytes_down=self._folder.aggregate_path(manifest).stat().st_size,
            parameters=manifest.updates[0].header.parameters,
            seconds={name: round(value, 4) for name, value in (parts | dict(seconds)).items()},
            quality=quality(start),
        )
        self._folder.keep_summary(number, manifest.attempt, event.as_record())
        self._emit(event)
