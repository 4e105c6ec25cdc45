"""An OpenAI-compatible endpoint as a judge, against a server that times out and talks nonsense."""

import pytest
from needs import need

need("openai", "diskcache")

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vgf.cli import main as vgf
from vgf.support.errors import VGFError
from vgf.text import judge
from vgf.text.endpoint import PROMPTS, Endpoint, read_answer
from vgf.text.judging import length_controlled, paired


class Server(ThreadingHTTPServer):
    """Answers by `script`, a list of replies used up one by one, and then by `rule`."""

    daemon_threads = True

    def __init__(self, rule):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule, self.script, self.asked, self.lock = rule, [], [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            reply = self.server.script.pop(0) if self.server.script else None
        if reply is None:
            reply = self.server.rule(body["messages"][0]["content"])
        if reply == "hang":
            time.sleep(1.0)
            return
        if reply == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            return
        if reply == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            return
        status, text, *more = reply if isinstance(reply, tuple) else (200, reply)
        if status == 200 and not text.startswith("{"):
            message = {"role": "assistant", "content": text}
            text = json.dumps(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                }
            )
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429:
            self.send_header("Retry-After", *(more or ["0.01"]))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def longer(question):
    """The judge prefers the longer summary, and says so in the format asked for."""
    a, b = question.split("Summary A:\n")[1].split("\n\nSummary B:\n")
    b = b.split("\n\nFIRST")[0]
    word = "A" if len(a) > len(b) else "B"
    return f"Comparison: one is longer.\nPreferred: {word}"


@pytest.fixture
def server():
    made = Server(longer)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def responses(tmp_path):
    rows = [
        {
            "prompt": f"post {i}",
            "samples": [{"response": base}],
            "best_of_n": {"response": best},
            "budgets": [{"steps": 5, "response": flow}],
        }
        for i, (base, best, flow) in enumerate(
            [("b", "bb", "bbb"), ("bb", "b", "bbb"), ("bbb", "bb", "bbbb")]
        )
    ]
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def endpoint(server, tmp_path, **changes):
    how = {"url": server.url, "cache": tmp_path / "answers", "timeout": 30.0, "pause": 0.01}
    return Endpoint("m", **{**how, **changes})


def test_both_orders_are_asked_and_answers_kept(server, responses, tmp_path):
    own = endpoint(server, tmp_path)
    best, flow = judge(responses, {"m": own})
    assert (best.wins, best.ties, best.losses, best.missing) == (1, 0, 2, 0)
    assert (flow.wins, flow.losses, flow.rate) == (3, 0, 1.0)
    assert len(server.asked) == own.sent == 12
    texts = [body["messages"][0]["content"] for body in server.asked]
    assert sum("Summary A:\nbbb\n\nSummary B:\nb\n" in text for text in texts) == 1
    assert sum("Summary A:\nb\n\nSummary B:\nbbb\n" in text for text in texts) == 1
    assert all("Post:\npost" in text for text in texts)
    again = endpoint(server, tmp_path)
    assert judge(responses, {"m": again}) == [best, flow]
    assert again.sent == 0


def test_a_judge_that_always_says_the_first_makes_ties(server, responses, tmp_path):
    server.rule = lambda _: "Preferred: A"
    best, flow = judge(responses, {"m": endpoint(server, tmp_path)})
    assert (best.ties, flow.ties, best.rate, best.p) == (3, 3, 0.5, 1.0)


def test_timeouts_refusals_and_nonsense_are_asked_again(server, responses, tmp_path):
    server.script = ["hang", (429, "{}"), (500, "{}"), "I would rather not say", "{]", (200, "{}")]
    own = endpoint(server, tmp_path, timeout=0.5, workers=1, retries=6)
    best, flow = judge(responses, {"m": own})
    assert (best.wins, best.losses, flow.wins) == (1, 2, 3)
    assert own.sent == 12 + 6
    assert best.missing == flow.missing == 0


@pytest.mark.parametrize(
    "reply",
    [
        "drip",
        "cut",
        (429, "{}", "nan"),
        (429, "{}", "-1"),
        (429, "{}", "Wed, 21 Oct 2015 07:28:00 GMT"),
        (408, "{}"),
        (200, "{" + " " * 2**21),
        (200, '{"choices": ' + "[" * 100_000),
        (200, '{"choices": [{"message": {"content": ["A"]}}]}'),
        (200, '{"created": ' + "9" * 5000 + "}"),
        (200, '{"choices": [{"message": {"content": "\\ud800"}}]}'),
        (200, "{\xff"),
    ],
    ids=lambda reply: str(reply)[:20],
)
def test_hostile_answers_are_asked_again(server, tmp_path, reply):
    server.script = [reply]
    own = endpoint(server, tmp_path, workers=1, retries=1, timeout=0.5 if reply == "drip" else 30.0)
    question = ["post"], ["a"], ["bb"]
    assert own.pairs(*(2 * one for one in question)) == ([-1.0], [-1.0])
    assert own.sent == 2
    assert len(server.asked) == 2


def test_one_refused_question_does_not_end_the_job(server, responses, tmp_path):
    def rule(question):
        refused = (400, json.dumps({"error": {"message": "filtered"}}))
        return refused if "post 1" in question else longer(question)

    server.rule = rule
    best, flow = judge(responses, {"m": endpoint(server, tmp_path, workers=1)})
    assert (best.missing, flow.missing) == (1, 1)
    assert (best.prompts, flow.wins) == (2, 2)


def test_what_stays_nonsense_is_missing_and_said(server, responses, tmp_path, capsys):
    def rule(question):
        return "who knows" if "post 1" in question else longer(question)

    server.rule = rule
    best, _ = judge(responses, {"m": endpoint(server, tmp_path, retries=1)})
    assert (best.wins, best.losses, best.missing, best.prompts) == (1, 1, 1, 2)
    words = ["judge", str(responses), "--judge", "openai:m", "--judge-url", server.url]
    words += ["--judge-cache", str(tmp_path / "other"), "--retries", "0"]
    words += ["--json", str(tmp_path / "numbers.json")]
    assert vgf(words) == 0
    assert "openai:m could not tell 2 of 6 pairs" in capsys.readouterr().out
    assert "NaN" not in (tmp_path / "numbers.json").read_text()


def test_a_limit_on_calls_holds_and_the_next_job_goes_on(server, responses, tmp_path):
    server.script = [(429, "{}")] * 2
    own = endpoint(server, tmp_path, calls=7, workers=2)
    verdicts = judge(responses, {"m": own})
    assert len(server.asked) == own.sent == 7
    assert sum(verdict.missing for verdict in verdicts) > 0
    verdicts = judge(responses, {"m": endpoint(server, tmp_path)})
    assert sum(verdict.missing for verdict in verdicts) == 0
    assert len(server.asked) == 7 + 12 - 5


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_ends_the_job_with_one_line(server, responses, tmp_path, capsys, status):
    server.rule = lambda _: (status, json.dumps({"error": {"message": "no such model"}}))
    words = ["judge", str(responses), "--judge", "openai:m", "--judge-url", server.url]
    assert vgf([*words, "--judge-cache", str(tmp_path / "c")]) == 2
    found = capsys.readouterr().err
    assert "error: the judge m refuses the request" in found
    assert "no such model" in found


def test_an_endpoint_that_is_not_there(responses, tmp_path):
    own = Endpoint("m", "http://127.0.0.1:9/v1", cache=tmp_path / "c", retries=1, pause=0.01)
    with pytest.raises(VGFError, match=r"the judge m at http://127.0.0.1:9/v1 gave no answer"):
        judge(responses, {"m": own})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Comparison: A is short.\nPreferred: "B"', -1.0),
        ("Comparison: fine\nMore helpful: A", 1.0),
        ("**Preferred:** **A**", 1.0),
        ("A", 1.0),
        ("It is hard.\n\n'B'.", -1.0),
        ("Preferred: tie", 0.0),
        ("Preferred: A\nNo: \nPreferred: B", -1.0),
        ("Preferred: Abraham", None),
        ("Comparison: Summary B is better: a concise and precise one.\n\nB", -1.0),
        ("My answer: a tie", 0.0),
        ("Preferred: A and B are equal", 0.0),
        ("Preferred: A/B", None),
        ('Preferred: <"A" or "B">', None),
        ("Preferred: Summary B", -1.0),
        ("More helpful: Response A", 1.0),
        ("Preferred: A, as it is shorter than B", 1.0),
        ("preferred: b", -1.0),
        ("Preferred: A for its clarity", 1.0),
        ("Preferred: not A", None),
        ("I like A", None),
        ("Preferred: A or B", None),
        ("A is better than B in all", None),
        ("", None),
    ],
)
def test_answers_as_they_come(text, value):
    assert read_answer(text) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"workers": 0}, "--judge-workers is 0"),
        ({"retries": -1}, "--retries is -1"),
        ({"timeout": -1.0}, "--judge-timeout is -1"),
    ],
)
def test_numbers_out_of_their_range(server, tmp_path, words, message):
    with pytest.raises(VGFError, match=message):
        endpoint(server, tmp_path, **words)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(VGFError, match="--judge-cache"):
        Endpoint("m", server.url, cache=file)


def test_questions(server, responses, tmp_path):
    assert all(part in text for text in PROMPTS.values() for part in ("{prompt}", "{a}", "{b}"))
    mine = tmp_path / "q.txt"
    mine.write_text("{prompt}|Summary A:\n{a}\n\nSummary B:\n{b}\n\nFIRST")
    best, _ = judge(responses, {"m": endpoint(server, tmp_path, question=str(mine))})
    assert best.wins == 1
    assert server.asked[0]["messages"][0]["content"].startswith("post")
    mine.write_text("{prompt} {a}")
    with pytest.raises(VGFError, match=r"has no \{b\}"):
        endpoint(server, tmp_path, question=str(mine))
    with pytest.raises(VGFError, match="choose tldr, hh, or a text file"):
        endpoint(server, tmp_path, question="tlrd")


# --- functions, statistics ----------------------------------------------------------------------


def test_functions_take_one_item_or_many_and_compare_two(responses):
    calls = []

    def one(prompt, response):
        calls.append(response)
        if len(calls) % 3 == 1:
            raise OSError("busy")
        return len(response)

    def two(prompt, first, second):
        return len(first) - len(second)

    def many(prompts, first, second):
        return [len(a) - len(b) for a, b in zip(first, second, strict=True)]

    def biased(prompts, first, second):
        return [1] * len(prompts)

    found = judge(responses, {"one": one, "two": two, "many": many, "biased": biased})
    by = {(v.judge, v.method): v for v in found}
    for name in ("one", "two", "many"):
        assert (by[name, "best_of_n"].wins, by[name, "best_of_n"].losses) == (1, 2)
        assert by[name, "L=5"].wins == 3
    assert by["biased", "L=5"].ties == 3

    def broken(prompt, response):
        raise RuntimeError("no")

    with pytest.raises(VGFError, match="judge broken raised RuntimeError: no"):
        judge(responses, {"broken": broken}, retries=0)

    def sometimes(prompt, response):
        return len(response) if prompt != "post 1" else 1 / 0

    assert judge(responses, {"s": sometimes}, retries=0)[0].missing == 1


def test_ties_are_half_and_seeds_are_averaged_by_prompt(tmp_path):
    files = []
    for seed, wins in ((0, "110"), (1, "100")):
        rows = [
            {
                "index": i,
                "prompt": f"p{i}",
                "samples": [{"response": "b"}],
                "best_of_n": {"response": "bb" if win == "1" else "b"},
                "budgets": [],
                "settings": {"seed": seed},
                "config": str(seed),
            }
            for i, win in enumerate(wins)
        ]
        files.append(tmp_path / f"{seed}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    (best,) = judge(files, {"length": lambda p, r: list(map(len, r))})
    assert best.scores == (1.0, 0.75, 0.5)
    assert (best.wins, best.ties, best.prompts, best.rate) == (3, 3, 3, 0.75)
    files[1].write_text(files[1].read_text().replace('"seed": 1', '"seed": 1, "particles": 3'))
    with pytest.raises(VGFError, match="was made with particles 3, others with None"):
        judge(files, {"length": lambda p, r: list(map(len, r))})


def test_against_another_file_and_paired_tests(responses, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(f'{{"prompt": "post {i}", "response": "bb"}}\n' for i in (2, 0, 1)))
    score = {"length": lambda p, r: list(map(len, r))}
    found = judge(responses, score, str(other))
    assert [(v.method, v.against) for v in found] == [
        ("base", "other.jsonl"),
        ("best_of_n", "other.jsonl"),
        ("L=5", "other.jsonl"),
    ]
    assert found[2].wins == 3
    tests = {(t.method, t.other): t for t in paired(found)}
    assert tests["base", "L=5"].difference == pytest.approx(-0.5)
    assert tests["base", "L=5"].p == pytest.approx(0.5)  # better in 0 of 2 prompts that differ
    other.write_text('{"prompt": "post 0", "response": "bb"}\n')
    with pytest.raises(VGFError, match="has no response to prompt 2"):
        judge(responses, score, str(other))


def test_the_rate_at_equal_length():
    points = [1, 0] * 50
    longer = [3, -3] * 50  # whoever is longer wins
    assert length_controlled(points, longer) == pytest.approx(0.5, abs=0.01)
    assert length_controlled([1, 1, 1, 0] * 25, [0] * 100) == pytest.approx(0.75, abs=0.01)
    mixed = length_controlled([1, 1, 1, 0] * 25, [3, 3, -3, -3] * 25)
    assert 0.75 < mixed < 0.9
    assert length_controlled([float("nan")], [1]) is None
