"""Recorded notes and hits, listed in a table: the instruments that `sampler` plays.

The table is a CSV file with one row per sound file and these columns, in any order. Other
columns are ignored.

    path          Sound file of one note or hit, relative to the table. Required.
    class         One of the 20 classes, or "other" for an unlabelled sound. Required.
    recording     Name that sounds of one origin share: one player, session or library.
                  Whole recordings are held out, and all count equally. Required.
    instrument    Name of the instrument, such as "tenor_saxophone".
    midi_pitch    MIDI note number, 0 to 127, 60 = middle C. Fractions are allowed. Empty
                  for drums and cymbals. A melodic sound without pitch is not played,
                  unless `load_recordings` estimates it.
    articulation  Playing technique ("pizzicato"), or the kind of a drum or cymbal ("kick",
                  "open_hat"). Without it, the kind is taken from the instrument, then from
                  the name of the file.
    seconds       Length of the sound. Long notes of blown, bowed and held instruments take
                  sounds of 1 s or more where there are some.
    peak_before   Peak of the sound before it was normalised, if it was. It orders the sounds
                  of one pitch by strength, and balances the pitches.
    licence, source, repository
                  For the credits in a model card. The repository is an address, or
                  "OWNER/NAME" on GitHub.
"""

from __future__ import annotations

import csv
import io
import math
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rfkeras.errors import AudioError, ConfigError, DatasetError, unknown_name
from rfkeras.synthesis.mapping import CLASSES, INSTRUMENTS
from rfkeras.synthesis.recorded_sound import (
    CACHE_BYTES,
    Sound,
    SoundCache,
    estimate_pitch,
)
from rfkeras.utils.files import read_text
from rfkeras.utils.text import first_few

OTHER = "other"
"""Class of sounds that have none of the 20 labels."""

_REGISTER_MARGIN = 5
_REQUIRED = ("path", "class", "recording")

# Words of an articulation or instrument, and the family that they show. The first one counts.
_FAMILIES = (
    ("plucked", r"pizz|pluck|harp(?!s)"),
    ("sustained", r"arco|bowed|bassoon|oboe|horn|tuba|section|strings|choir"),
    ("keys", r"harmonium|harmonica"),
    ("struck", r"piano|marimba|vibraphone|bells?"),
)
# The same for the kind of a drum or cymbal.
_KINDS = {
    "drums": (
        ("stick", r"stick|rim"),
        ("clap", r"clap"),
        ("kick", r"kick|kdrum|bass.?drum|drum.?bass"),
        ("snare", r"snare"),
        ("high_tom", r"high.?tom|tom.?(1|hi)"),
        ("floor_tom", r"floor|tom.?4|tom.?lo"),
        ("low_tom", r"tom"),
    ),
    "cymbals": (
        ("pedal_hat", r"pedal"),
        ("open_hat", r"open"),
        ("closed_hat", r"closed|hat"),
        ("bell", r"bell"),
        ("ride", r"ride"),
        ("splash", r"splash"),
        ("china", r"china"),
        ("crash", r"crash|cym"),
    ),
}
_NO_HIT = re.compile(r"bowed|roll")


@dataclass(frozen=True, eq=False)
class RecordedNote:
    """One sound file of the table.

    Attributes:
        path: The file.
        row: Line of the table, for messages.
        class_name: One of the 20 classes, or "other".
        instrument: Name of the instrument; the class if the table has none.
        recording: Name of the recording.
        family: As in `mapping.Instrument`.
        pitch: MIDI note number; None for hits and where it is unknown.
        kind: Kind of a drum or cymbal, a key of DRUM_NOTES or CYMBAL_NOTES; otherwise None.
        peak: Peak before normalisation; None if unknown.
        seconds: Length; None if unknown.
        licence: Licence of the file; may be empty.
        repository: Where the file is kept; may be empty.
        source: Where it is from; may be empty.
    """

    path: Path
    row: int
    class_name: str
    instrument: str
    recording: str
    family: str
    pitch: float | None
    kind: str | None
    peak: float | None
    seconds: float | None = None
    licence: str = ""
    repository: str = ""
    source: str = ""

    @property
    def place(self) -> float | str | None:
        """Pitch or kind: sounds with the same one can stand for each other."""
        return self.pitch if self.kind is None else self.kind


@dataclass(frozen=True, eq=False)
class RecordedInstrument:
    """The notes of one instrument in one recording; of a kit, all its drums or cymbals.

    Attributes:
        class_name: One of the 20 classes, or "other".
        recording: Name of the recording.
        instrument: Name of the instrument; "kit" for drums and cymbals.
        notes: The notes and hits that can be played.
        table: The table, for messages.
        sounds: Cache that the instruments of a table share.
    """

    class_name: str
    recording: str
    instrument: str
    notes: tuple[RecordedNote, ...]
    table: Path
    sounds: SoundCache = field(repr=False)

    @property
    def is_kit(self) -> bool:
        """Return whether notes choose the kind of a drum or cymbal instead of a pitch."""
        return self.class_name in _KINDS

    @cached_property
    def places(self) -> Mapping[float | str, tuple[RecordedNote, ...]]:
        """The notes by pitch (ascending) or kind; of each, the softest first."""
        found: dict[float | str, list[RecordedNote]] = defaultdict(list)
        for note in self.notes:
            if note.place is not None:
                found[note.place].append(note)
        return {
            place: tuple(sorted(found[place], key=lambda note: note.peak or 0.0))
            for place in sorted(found, key=lambda place: str(place) if self.is_kit else place)
        }

    def sound(self, note: RecordedNote) -> Sound:
        """Return the samples of a note.

        Raises:
            DatasetError: The file cannot be decoded, or is silent.
        """
        return _sound(self.table, note, self.sounds)


@dataclass(frozen=True)
class Credit:
    """Origin and licence of recordings, as a model card has to name them.

    Attributes:
        recording: Name of the recording.
        source: Where it is from; may be empty.
        licence: Its licence; may be empty.
        repository: Where it is kept; may be empty.
        classes: What it plays, in order.
        notes: Number of files.
    """

    recording: str
    source: str
    licence: str
    repository: str
    classes: tuple[str, ...]
    notes: int


class Recordings:
    """The instruments of a table, by class.

    Args:
        table: The table, for messages.
        notes: The notes that can be used.
        sounds: Cache of the decoded sounds.
    """

    def __init__(self, table: Path, notes: Iterable[RecordedNote], sounds: SoundCache) -> None:
        self.table = table
        grouped: dict[tuple[str, str, str], list[RecordedNote]] = defaultdict(list)
        for note in notes:
            if note.place is not None:
                name = "kit" if note.class_name in _KINDS else note.instrument
                grouped[note.class_name, note.recording, name].append(note)
        self._groups: dict[str, list[RecordedInstrument]] = defaultdict(list)
        for key in sorted(grouped):
            instrument = RecordedInstrument(*key, tuple(grouped[key]), table, sounds)
            self._groups[instrument.class_name].append(instrument)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes with at least one instrument that can be played, in order."""
        return tuple(sorted(self._groups))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recordings, in order."""
        return tuple(sorted({group.recording for group in self._all()}))

    def groups(self, class_name: str) -> tuple[RecordedInstrument, ...]:
        """Return the instruments of a class, ordered by recording; () if there are none."""
        return tuple(self._groups.get(class_name, ()))

    def credits(self, classes: Collection[str] | None = None) -> tuple[Credit, ...]:
        """Return the origins and licences of the notes, for a model card.

        Args:
            classes: Count only these classes; None for all.
        """
        played: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
        for group in self._all():
            if classes is None or group.class_name in classes:
                for note in group.notes:
                    key = (note.recording, note.source, note.licence, note.repository)
                    played[key].append(group.class_name)
        return tuple(
            Credit(*key, tuple(sorted(set(names))), len(names))
            for key, names in sorted(played.items())
        )

    def check(self) -> None:
        """Decode every file once.

        Raises:
            DatasetError: A file cannot be decoded, or is silent.
        """
        for group in self._all():
            for note in group.notes:
                group.sound(note)

    def _all(self) -> Iterator[RecordedInstrument]:
        for groups in self._groups.values():
            yield from groups


def weights(groups: Collection[RecordedInstrument]) -> tuple[float, ...]:
    """Return the probability of each instrument, with equal shares for the recordings."""
    recordings = [group.recording for group in groups]
    share = 1 / max(1, len(set(recordings)))
    return tuple(share / recordings.count(name) for name in recordings)


def draw_instrument(
    rng: random.Random, groups: Collection[RecordedInstrument]
) -> RecordedInstrument:
    """Draw one of the instruments, with equal probability for each recording.

    Raises:
        ConfigError: There are no instruments.
    """
    if not groups:
        raise ConfigError("There is no recorded instrument to draw. Check `groups` first.")
    return rng.choices(list(groups), weights(groups))[0]


def load_recordings(
    table: str | Path,
    leave_out: Collection[str] = (),
    *,
    estimate_pitches: bool = False,
    cache_bytes: int = CACHE_BYTES,
) -> Recordings:
    """Read a table of recorded notes, whose columns this module's documentation lists.

    Audio is decoded when it is first played; `Recordings.check` decodes all of it.

    Args:
        table: The CSV file.
        leave_out: Names of recordings that must not be used.
        estimate_pitches: Measure the pitches of instruments for which the table has none.
            Sounds whose pitch is unclear, or outside the register of the class, stay unused.
        cache_bytes: Limit of the decoded sounds kept in memory.

    Raises:
        ConfigError: The table does not exist, or `leave_out` names an unknown recording.
        DatasetError: The table has a wrong value, or no note that can be played.
    """
    path = Path(table)
    if not path.is_file():
        raise ConfigError(
            "The recordings must be a table of notes (notes.csv). Received: "
            f"{path}, which does not exist."
        )
    notes = _read_table(path)
    names = {note.recording for note in notes}
    for name in leave_out:
        if name not in names:
            raise ConfigError(f"{path}: {unknown_name('recording to leave out', name, names)}")
    missing = [note for note in notes if not note.path.is_file()]
    if missing:
        more = f" {len(missing)} files are missing." if len(missing) > 1 else ""
        raise DatasetError(
            f"{path}, row {missing[0].row}, column path: {missing[0].path} does not "
            f"exist.{more} Paths are relative to the table. Restore the files or delete the "
            "rows."
        )
    kept = [note for note in notes if note.recording not in leave_out]
    sounds = SoundCache(cache_bytes)
    if estimate_pitches:
        kept = _with_estimates(path, kept, sounds)
    recordings = Recordings(path, kept, sounds)
    if not recordings.classes:
        raise DatasetError(
            f"{path} has no note that can be played: melodic sounds need midi_pitch, and drums "
            f"or cymbals a kind. Recordings left out: {first_few(sorted(leave_out)) or 'none'}."
        )
    return recordings


def _sound(table: Path, note: RecordedNote, sounds: SoundCache) -> Sound:
    """Return the samples of a note; errors name its row."""
    try:
        return sounds.read(note.path)
    except AudioError as error:
        raise DatasetError(
            f"{table}, row {note.row}, column path: {error.path}: {error.reason}. Replace the "
            "file, or delete the row."
        ) from error


def _with_estimates(
    table: Path, notes: Collection[RecordedNote], sounds: SoundCache
) -> list[RecordedNote]:
    """Return the notes, with measured pitches for instruments that have none.

    Where other notes of an instrument have pitches, those without are noises.
    """
    pitched = {_instrument_of(note) for note in notes if note.pitch is not None}
    measured = []
    for note in notes:
        patches = INSTRUMENTS[note.class_name].patches if note.class_name != OTHER else ()
        if patches and _instrument_of(note) not in pitched:
            pitch = estimate_pitch(_sound(table, note, sounds))
            low = min(patch.low for patch in patches) - _REGISTER_MARGIN
            high = max(patch.high for patch in patches) + _REGISTER_MARGIN
            if pitch is not None and low <= pitch <= high:
                note = replace(note, pitch=round(pitch, 2))
        measured.append(note)
    return measured


def _instrument_of(note: RecordedNote) -> tuple[str, str, str]:
    return note.class_name, note.recording, note.instrument


def _read_table(path: Path) -> list[RecordedNote]:
    """Return the rows of a table as notes."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        columns = reader.fieldnames or ()
        absent = [name for name in _REQUIRED if name not in columns]
        if absent:
            raise DatasetError(
                f"{path} needs the columns {', '.join(_REQUIRED)}. Missing: "
                f"{', '.join(absent)}. Received: {', '.join(columns)}."
            )
        return [_note(path, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}, row {reader.reader.line_num}: {error}.") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def _note(table: Path, line: int, row: Mapping[str | None, str | None]) -> RecordedNote:
    """Return one row as a note."""

    def cell(column: str) -> str:
        value = row.get(column)
        return value.strip() if isinstance(value, str) else ""

    def number(column: str, low: float, high: float, meaning: str) -> float | None:
        text = cell(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise DatasetError(
                f"{table}, row {line}, column {column}: {meaning}, or empty if it is unknown. "
                f"Received: {text!r}."
            )
        return value

    for column in _REQUIRED:
        if not cell(column):
            raise DatasetError(f"{table}, row {line}, column {column}: a value is required.")
    class_name = cell("class")
    if class_name not in (*CLASSES, OTHER):
        raise DatasetError(
            f"{table}, row {line}, column class: "
            f"{unknown_name('class', class_name, (*CLASSES, OTHER))}"
        )
    instrument, articulation = cell("instrument"), cell("articulation")
    path = table.parent / cell("path")
    kind = None
    if class_name in _KINDS:
        kind = _kind(class_name, articulation, instrument, path.stem)
    return RecordedNote(
        path=path,
        row=line,
        class_name=class_name,
        instrument=instrument or class_name,
        recording=cell("recording"),
        family=_family(class_name, articulation, instrument),
        pitch=number("midi_pitch", 0, 127, "a MIDI note number is 0 to 127"),
        kind=kind,
        peak=number("peak_before", 1e-9, 1e9, "the peak before normalisation is positive"),
        seconds=number("seconds", 1e-9, 1e9, "the length in seconds is positive"),
        licence=cell("licence"),
        repository=cell("repository"),
        source=cell("source"),
    )


def _family(class_name: str, *names: str) -> str:
    """Return the family of an instrument; of the names, the first that shows one counts."""
    if class_name in _KINDS:
        return "kit"
    known = INSTRUMENTS[class_name].family if class_name != OTHER else None
    for name in names:
        for family, words in _FAMILIES:
            if re.search(words, name.lower()):
                # A piano or an organ is what its class says; an articulation changes strings.
                return family if known in (None, "plucked", "sustained") else known
    return known or "plucked"


def _kind(class_name: str, *names: str) -> str | None:
    """Return the kind of a drum or cymbal; None for rolls, bowed sounds and unknown ones."""
    if any(_NO_HIT.search(name.lower()) for name in names):
        return None
    for name in names:
        # "cymbal" says nothing about a cymbal if another name says more.
        plain = re.sub(r"^(cymbals?|drums?)$", "", name.lower())
        for kind, words in _KINDS[class_name]:
            if re.search(words, plain):
                return kind
    return None
