"""Both sides of the relay, over a post that loses, delays and repeats messages."""

import time

import pytest
from exchange_files import ME, OTHER, YOU, put

from fedpriv.flower.relay import domain_side, researcher_side
from fedpriv.flower.relay.domain_side import answer_parcel
from fedpriv.flower.relay.mirror import VERSIONS, RelayError, Shelf, Stamp
from fedpriv.flower.relay.parcel import Parcel
from fedpriv.flower.relay.researcher_side import Relay
from fedpriv.study.versions import VERSIONS_FILE


class Post:
    """SuperNodes in this process. One that is down loses what it is sent."""

    def __init__(self, nodes):
        self.domains, self.down, self.said, self.sent = dict(nodes), set(), [], []
        self.answered, self.faults = {}, []

    def nodes(self):
        return set(self.domains)

    def send(self, node, parcel, ttl_s):
        name = f"message-{len(self.sent)}"
        self.sent.append((node, parcel))
        if self.faults:
            self.answered[name] = self.faults.pop(0)
        elif node not in self.down and node in self.domains:
            exchange, domain = self.domains[node]
            wire = Parcel.of(parcel.letter(), [data for _, data in parcel.files])
            try:
                answer = answer_parcel(wire, exchange, domain)
                self.answered[name] = Parcel.of(answer.letter(), [data for _, data in answer.files])
            except RelayError as error:
                self.answered[name] = str(error)
        return name

    def answers(self, names):
        return [(name, self.answered.pop(name)) for name in names if name in self.answered]

    def say(self, sentence):
        self.said.append(sentence)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, value in {"_LOOK_S": 0.001, "_NODES_S": 0.0, "_PULL_S": 0.0, "_AGAIN_S": 0.0, "_LATE_S": 0.02}.items():
        monkeypatch.setattr(researcher_side, name, value)
    monkeypatch.setattr(researcher_side, "_WAITS_S", (0.02, 0.04))
    monkeypatch.setattr(researcher_side, "_IDLE_S", (0.01, 0.02))
    monkeypatch.setattr(domain_side, "_LOOK_S", 0.001)
    monkeypatch.setattr(domain_side, "_FOLLOWS_S", 0.01)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def site(tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)
    return tmp_path / name


def run(relay, until, seconds=5.0):
    end = time.monotonic() + seconds

    def is_over():
        assert time.monotonic() < end, "it never came"
        return until()

    relay.run(is_over)


def test_a_ticket_goes_to_its_domain_only_and_the_answer_comes_back(tmp_path, home):
    places = {1: (site(tmp_path, "micu"), ME), 2: (site(tmp_path, "sicu"), OTHER)}
    post = Post(places)
    put(home, f"{YOU}/to/{ME}/blobs/sum-1", b"sealed")
    put(home, f"{YOU}/to/{ME}/inbox/{1:012d}", b"ticket")
    put(home, f"{YOU}/identity.json", b"public")
    put(places[1][0], f"{ME}/to/{YOU}/outbox/{1:012d}", b"answer")
    put(places[1][0], f"{ME}/to/{YOU}/blobs/update-1", b"sealed too")
    put(places[2][0], f"{OTHER}/identity.json", b"public too")
    run(
        Relay(post, home, YOU),
        lambda: (home / f"{ME}/to/{YOU}/outbox/{1:012d}").exists() and (home / f"{OTHER}/identity.json").exists(),
    )
    assert (places[1][0] / f"{YOU}/to/{ME}/inbox/{1:012d}").read_bytes() == b"ticket"
    assert (home / f"{ME}/to/{YOU}/blobs/update-1").read_bytes() == b"sealed too"
    assert not (places[2][0] / f"{YOU}/to").exists()
    assert (places[2][0] / f"{YOU}/identity.json").read_bytes() == b"public"
    assert sorted(said.partition(" (")[0] for said in post.said) == [f"{ME}: connected", f"{OTHER}: connected"]


def test_domains_read_what_the_others_say_of_their_software_and_nothing_else_of_them(tmp_path, home):
    places = {1: (site(tmp_path, "micu"), ME), 2: (site(tmp_path, "sicu"), OTHER)}
    put(places[2][0], f"{OTHER}/{VERSIONS_FILE}", b"signed")
    put(places[2][0], f"{OTHER}/identity.json", b"public")
    run(Relay(Post(places), home, YOU), (places[1][0] / f"{OTHER}/{VERSIONS_FILE}").exists)
    assert [path.name for path in (places[1][0] / OTHER).iterdir()] == [VERSIONS_FILE]
    assert VERSIONS == VERSIONS_FILE


def test_nothing_is_sent_twice_and_a_quiet_domain_is_asked_less_and_less(tmp_path, home):
    post = Post({1: (site(tmp_path, "micu"), ME)})
    put(home, f"{YOU}/identity.json", b"public")
    end = time.monotonic() + 0.3
    relay = Relay(post, home, YOU)
    relay.run(lambda: time.monotonic() > end)
    assert sum(parcel.size for _, parcel in post.sent) == len(b"public") == relay.bytes_down
    assert 5 < len(post.sent) < 25


def test_a_domain_whose_node_was_killed_gets_all_that_it_lacks_from_the_next_one(tmp_path, home):
    place = (site(tmp_path, "micu"), ME)
    post = Post({1: place})
    relay = Relay(post, home, YOU)
    run(relay, lambda: post.said)
    post.down.add(1)
    put(home, f"{YOU}/to/{ME}/inbox/{1:012d}", b"ticket")
    run(relay, lambda: any(parcel.files for _, parcel in post.sent))
    assert not (place[0] / YOU).exists()
    post.domains = {2: place}
    run(relay, (place[0] / f"{YOU}/to/{ME}/inbox/{1:012d}").exists)
    assert f"{ME}: its SuperNode is gone" in post.said


def test_a_message_that_is_lost_by_a_node_that_lives_on_is_sent_again(tmp_path, home):
    place = (site(tmp_path, "micu"), ME)
    post = Post({1: place})
    relay = Relay(post, home, YOU)
    run(relay, lambda: post.said)
    post.down.add(1)
    put(home, f"{YOU}/to/{ME}/inbox/{1:012d}", b"ticket")
    run(relay, lambda: any(parcel.files for _, parcel in post.sent))
    post.down.clear()
    run(relay, (place[0] / f"{YOU}/to/{ME}/inbox/{1:012d}").exists)


def test_an_error_of_a_node_is_said_and_it_is_greeted_again(tmp_path, home):
    post = Post({1: (site(tmp_path, "micu"), ME)})
    post.faults = ["this SuperNode has no exchange folder", Parcel(sender=YOU), Parcel(sender="../..")]
    run(Relay(post, home, YOU), lambda: any("connected" in said for said in post.said))
    assert "node 1: this SuperNode has no exchange folder" in post.said
    assert len([said for said in post.said if said.startswith("node 1: ")]) == 3


def test_a_disk_that_takes_nothing_is_said_and_tried_again(tmp_path, home, monkeypatch):
    place = (site(tmp_path, "micu"), ME)
    put(place[0], f"{ME}/identity.json", b"public")
    post, failures, whole = Post({1: place}), [OSError(28, "No space left on device")], Shelf.receive

    def receive(shelf, *given):
        if shelf.root == home and failures:
            raise failures.pop()
        whole(shelf, *given)

    monkeypatch.setattr(Shelf, "receive", receive)
    run(Relay(post, home, YOU), (home / f"{ME}/identity.json").exists)
    assert any("No space left on device" in said for said in post.said)


def test_a_node_that_changes_its_address_brings_nothing(tmp_path, home):
    post = Post({1: (site(tmp_path, "micu"), ME)})
    relay = Relay(post, home, YOU)
    run(relay, lambda: post.said)
    listed = {"identity.json": Stamp(size=1, time_us=1)}
    post.faults = [Parcel(sender=OTHER, recipient=YOU, left=listed, files=[("identity.json", b"x")])] * 3
    run(relay, lambda: any("it says now" in said for said in post.said))
    assert not (home / OTHER).exists()


def test_the_newest_node_of_a_domain_is_the_one(tmp_path, home):
    place = (site(tmp_path, "micu"), ME)
    post = Post({1: place})
    relay = Relay(post, home, YOU)
    run(relay, lambda: post.said)
    post.domains[2] = place
    run(relay, lambda: any("takes the place" in said for said in post.said))
    post.sent.clear()
    put(home, f"{YOU}/to/{ME}/inbox/{1:012d}", b"ticket")
    run(relay, (place[0] / f"{YOU}/to/{ME}/inbox/{1:012d}").exists)
    assert {node for node, parcel in post.sent if parcel.files} == {2}


def test_a_domain_takes_no_parcel_for_another_one_and_none_that_is_from_itself(tmp_path):
    exchange = site(tmp_path, "micu")
    with pytest.raises(RelayError, match=OTHER):
        answer_parcel(Parcel(sender=YOU, recipient=OTHER, left={}), exchange, ME)
    with pytest.raises(RelayError, match="for themselves"):
        answer_parcel(Parcel(sender=ME, recipient=ME, left={}), exchange, ME)


def test_a_domain_is_waited_for_until_it_answers_and_what_it_refers_to_comes_along(tmp_path):
    exchange = site(tmp_path, "micu")
    shelf = Shelf(root=exchange, owner=ME, reader=YOU)
    started = time.monotonic()
    answer = answer_parcel(Parcel(sender=YOU, recipient=ME, left={}, wait_s=0.1), exchange, ME)
    assert time.monotonic() - started >= 0.1
    assert not answer.files
    put(exchange, f"{ME}/to/{YOU}/status", b"training")
    put(exchange, f"{ME}/to/{YOU}/blobs/update-1", b"sealed")
    put(exchange, f"{ME}/to/{YOU}/outbox/{1:012d}", b"answer")
    answer = answer_parcel(Parcel(sender=YOU, recipient=ME, left={}, wait_s=60), exchange, ME)
    assert [name for name, _ in answer.files] == [
        f"to/{YOU}/blobs/update-1",
        f"to/{YOU}/status",
        f"to/{YOU}/outbox/{1:012d}",
    ]
    assert answer.left == shelf.listing()
