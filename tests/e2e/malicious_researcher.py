"""A researcher who changes the sum that one domain gets, and signs a manifest that names the changed bytes.

Run as ``python malicious_researcher.py HOME STUDY VICTIM ROUND``: everything else is what ``fedpriv study run`` does.
"""

import sys
from pathlib import Path

from fedpriv.errors import StudyError
from fedpriv.files import sha256_hex
from fedpriv.researcher import Researcher, Study
from fedpriv.researcher.catching_up import CatchingUp


def with_an_offset(path):
    """Return a sum's bytes with one coefficient of the first block changed; header and sizes stay right."""
    data = bytearray(path.read_bytes())
    header_bytes = int.from_bytes(data[:8], "little")  # safetensors: a length, a header, then the arrays
    data[8 + header_bytes + 35] ^= 0x80  # bit 31 of a coefficient: far above the noise
    return bytes(data)


def main(home, name, victim, number):
    honest = CatchingUp._carried

    async def carried(self, email, after, generation):
        fields = await honest(self, email, after, generation)
        if after == number and email == victim and "aggregate" in fields:
            manifest = fields["aggregate"]
            data = with_an_offset(self._folder.aggregate_path(manifest))
            fields["aggregate_blob"] = await self._courier.send(victim, self._name(manifest), data)
            fields["aggregate"] = manifest.model_copy(update={"aggregate_sha256": sha256_hex(data)})
        return fields

    CatchingUp._carried = carried
    try:
        Study.open(Researcher.open(Path(home)), name).run()
    except StudyError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
