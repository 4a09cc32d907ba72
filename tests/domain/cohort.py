"""A cohort whose domains seal, confirm and open in one process, with blobs passed from hand to hand."""

import numpy as np

from fedpriv.aggregation import aggregate_round
from fedpriv.domain.confirming import Confirming
from fedpriv.domain.context import StudyContext
from fedpriv.domain.folder import DataChoice, DomainConfig, PolicyChoice
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.opening import Opening
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.sealing import Sealing
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.domain.updates import Updates
from fedpriv.files import sha256_hex, write_atomic
from fedpriv.protection import IdentityKeys, combine_unlocks
from fedpriv.study import BlobRef, CodeRequest, Plan, Ticket
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from fedpriv.study.protection_choice import ProtectionChoice
from fedpriv.training.adapter import save_state
from tests.domain.conftest import approved

MEMBERS = ("ccu@x.org", "micu@x.org", "sicu@x.org")
PREFIX = "base_model.model.layer.q_proj"
START = {
    f"{PREFIX}.lora_A.weight": np.full((4, 10), 0.5, np.float32),
    f"{PREFIX}.lora_B.weight": np.zeros((20, 4), np.float32),
}


class Relay:
    """Blobs by name, as the researcher relays them."""

    def __init__(self):
        self.data = {}

    def send(self, recipient, name, data, *, on_moved=None):
        data = data if isinstance(data, bytes) else data.read_bytes()
        self.data[name] = data
        return BlobRef(name=name, size_bytes=len(data), sha256=sha256_hex(data))

    def receive(self, sender, reference, target, *, max_bytes, on_moved=None):
        assert reference.size_bytes <= max_bytes
        write_atomic(target, self.data[reference.name])
        return target

    def remove(self, recipient, name):
        self.data.pop(name, None)


class Cohort:
    """Three domains in a study of theirs; the key is with all of them."""

    def __init__(self, folder, ada, *, clip=0.02, privacy=None, protection=None, aggregation=None):
        self.folder, self.relay, self.said = folder, Relay(), []
        self.decisions = {}
        self.keys = {e: IdentityKeys.create(e, e.partition("@")[0], "11" * 32) for e in MEMBERS}
        plan = Plan(
            researcher=MemberChoice(email=ada.email, fingerprint=ada.fingerprint),
            cohort=tuple(MemberChoice(email=e, fingerprint=k.fingerprint) for e, k in self.keys.items()),
            base_model=BaseModelChoice(name="tiny"),
            protection=protection or ProtectionChoice(clip=clip),
            aggregation=aggregation or AggregationChoice(),
            privacy=privacy,
        )
        self.request = CodeRequest.new(plan, "def train(context):\n    return None\n")
        self.identities = {e: k.identity for e, k in self.keys.items()}
        self.domains = {email: self._domain(email, ada) for email in MEMBERS}
        self.rekey(1)

    def _domain(self, email, ada):
        config = DomainConfig(
            name=email.partition("@")[0],
            email=email,
            store=str(self.folder),
            data=DataChoice(source=str(self.folder)),
            policy=PolicyChoice(minimum_cohort=2),
        )
        self.decisions[email] = decision = approved(self.request, email, rounds=9)
        context = StudyContext(
            config=config,
            keys=self.keys[email],
            folder=StudyFolder(self.folder / email),
            stored=StoredRequest(request=self.request, researcher=ada.email, received_s=0.0, decision=decision),
            decision=lambda: self.decisions[email],
            ledger=Ledger(self.folder / f"{email}.jsonl", self.keys[email].sign_bytes, lambda data, signature: True),
            blobs=self.relay,
            on_progress=lambda progress: None,
            notify=self.said.append,
        )
        context.folder.keep_identities(self.identities)
        save_state(START, context.folder.adapter(0))
        return context

    def rekey(self, generation):
        """Have the first domain make a key and the others take it."""
        maker, *others = self.domains.values()
        made = maker.key_room.make(self.identities, maker.tensors(), turns=maker.turns(), generation=generation)
        for context in others:
            context.key_room.take(made["key_blobs"][context.member], self.identities)
        self.public = self.relay.data[made["public_context_blob"].name]

    def ticket(self, email, kind, number, attempt, **fields):
        return Ticket(study=self.request.study, kind=kind, round=number, attempt=attempt, member=email, **fields)

    def trained(self, email, number, change):
        """Write what training left: every parameter that the round trains ``change`` further than its adapter."""
        context = self.domains[email]
        path = context.folder.output(f"train-{number}") / "adapter_after.safetensors"
        after = context.adapter(number - 1)
        after |= {k: (v + np.float32(change)).astype(np.float32) for k, v in context.sent(after, number).items()}
        save_state(after, path)
        return path

    def seal(self, number, changes, *, attempt=1, weight=1.0, members=MEMBERS, bits=None):
        """Seal in every domain that is named; return its signed update by address."""
        updates = {}
        for email, change in changes.items():
            ticket = self.ticket(email, "train", number, attempt, members=members, weight=weight, bits=bits)
            sealing = Sealing(self.domains[email])
            Updates(self.domains[email]).keep(number, self.trained(email, number, change))
            updates[email] = sealing.seal(ticket)
            sealing.publish(updates[email])
        return updates

    def aggregate(self, number, updates, *, attempt=1):
        """Have the members confirm the sum, add it, and return its manifest with its blob."""
        signed = tuple(updates[email] for email in sorted(updates))
        unlocks = {
            email: Confirming(self.domains[email]).confirm(
                self.ticket(email, "confirm", number, attempt, updates=signed)
            )
            for email in updates
        }
        path = self.folder / f"sum-{number}-{attempt}"
        manifest = aggregate_round(
            self.public,
            [(u, self.domains[e].folder.sealed_path(number, attempt)) for e, u in updates.items()],
            self.identities,
            study=self.request.study,
            round=number,
            attempt=attempt,
            expected_members=list(updates),
            weights={email: update.header.weight for email, update in updates.items()},
            path=path,
            unlocked=combine_unlocks(signed, unlocks),
        )
        return manifest, path.read_bytes()

    def open(self, email, manifest, data):
        """Open a sum in one domain, as the train ticket of the next round would."""
        blob = self.relay.send(email, f"sum-{manifest.round}-{manifest.attempt}", data)
        ticket = self.ticket(
            email, "train", manifest.round + 1, manifest.attempt, aggregate=manifest, aggregate_blob=blob
        )
        Opening(self.domains[email]).open(ticket)

    def moved(self, email, number):
        """Return the mean change of the parameters in a round's adapter."""
        adapters = [self.domains[email].adapter(n) for n in (number, number - 1)]
        return float(np.mean([(adapters[0][k] - adapters[1][k]).mean() for k in START]))

    def facts(self, email, kind):
        return [entry.facts for entry in self.domains[email].ledger.entries() if entry.kind == kind]
