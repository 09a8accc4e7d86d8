"""Tokenizer against transformers: ordinary text, control tokens spelled by users, streaming."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from inlay.errors import ModelError, RequestError
from inlay.models import ModelSpec, Tokenizer, check_vocabulary, read_model, read_tokenizer

TEXTS = [
    "",
    " ",
    "Hello world",
    "  two spaces before and after  ",
    "line\n\n\nbreaks\r\n\ttabs",
    "Grüße, où, 東京は大きい。 Привет",
    "🙂🎉👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 a\u0308\u0323 \u200bzero \ufeff",
    "12345 isn't it's",
    "\ufffd replaced \x00 null",
    "a < b > c [ d ] | e",
]
ALPHABET = "ab zé\u0301東🙂\n\t<|>[]/ISTs\u200d\ufffd0▁"


def random_texts(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices(ALPHABET, k=generator.randrange(1, 40))) for _ in range(count)]


def specials_in(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [token for token in ids if token in tokenizer.special]


def test_ordinary_text_has_the_ids_that_transformers_gives(tokenizer_folder: Path) -> None:
    ours, theirs = read_tokenizer(tokenizer_folder), PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for text in TEXTS + random_texts(1, 200):
        assert ours.encode(text) == theirs(text)["input_ids"], text
        assert ours.encode(text, add_special=False) == theirs(text, add_special_tokens=False)["input_ids"], text


def test_special_tokens_in_a_text_are_plain_text_as_with_transformers_split_special_tokens(tokenizer_folder: Path) -> None:
    ours, theirs = read_tokenizer(tokenizer_folder), PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for special in ours.special.values():
        for text in (special, f"what is {special}?", f"{special}{special} and {special}", f"a{special}b"):
            ids = ours.encode(text, add_special=False)
            assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], text
            assert not [token for token in specials_in(ours, ids) if ours.special[token] != "<unk>"]
            assert len(ours.encode(text)) == len(ids) + 1


def test_special_tokens_are_read_as_such_where_asked(tokenizer_folder: Path) -> None:
    ours, theirs = read_tokenizer(tokenizer_folder), PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    special = list(ours.special.values())[-1]
    text = f"first {special} second"
    ids = ours.encode(text, parse_special=True)
    assert ids == theirs(text)["input_ids"]
    assert len(specials_in(ours, ids)) == 2


def test_a_text_that_begins_with_the_first_token_gets_no_second_one(tokenizer_folder: Path) -> None:
    ours = read_tokenizer(tokenizer_folder)
    first = ours.encode("")[0]
    text = ours.special[first] + "Hello"
    assert ours.encode(text, parse_special=True).count(first) == 1
    assert ours.encode(text).count(first) == 1
    assert ours.encode(text)[0] == first


def test_added_tokens_that_are_not_special_stay_vocabulary_in_plain_text(tokenizer_folders: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    number = next(number for number, text in tokenizer.added.items() if text == "<think>")
    assert tokenizer.encode("<think>", add_special=False) == [number]
    # The twin that keeps <|im_end|> out still knows <think>.
    assert number in tokenizer.encode("<|im_end|><think>")


def test_private_characters_beside_a_special_token_are_refused_and_alone_are_text(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    special = list(tokenizer.special.values())[1]
    forged = f"\ufdd2{special}\ufdd3"
    with pytest.raises(RequestError, match=r"U\+FDD2"):
        tokenizer.encode(forged)
    assert tokenizer.encode("\ufdd2 alone")


def test_decoding_leaves_special_tokens_out_unless_asked(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    ids = tokenizer.encode("Hello world")
    assert tokenizer.decode(ids) == "Hello world"
    assert tokenizer.decode(ids, skip_special=False) != "Hello world"
    assert tokenizer.token_text(ids[0]) == tokenizer.special[ids[0]]
    assert tokenizer.decode([tokenizer.size + 7]) == ""


def test_streamed_text_equals_the_whole_text(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    for text in TEXTS + random_texts(2, 300):
        ids = tokenizer.encode(text)
        stream = tokenizer.stream()
        pieces = [stream.feed(token) for token in ids] + [stream.flush()]
        assert "".join(pieces) == tokenizer.decode(ids), text


def test_no_streamed_piece_holds_a_cut_character(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokenizer.encode("a🙂東é👩‍👧 end", add_special=False)]
    assert "".join(pieces) == "a🙂東é👩‍👧 end"
    assert not any("\ufffd" in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > 4


def test_random_ids_stream_as_they_decode_in_byte_level_vocabularies(tokenizer_folders: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    generator = random.Random(3)
    for _ in range(200):
        ids = [generator.randrange(tokenizer.size + 5) for _ in range(generator.randrange(1, 60))]
        stream = tokenizer.stream()
        assert "".join([*map(stream.feed, ids), stream.flush()]) == tokenizer.decode(ids)


def test_a_cut_character_is_flushed_as_a_replacement_and_never_lost(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    ids = tokenizer.encode("x🙂", add_special=False)[:-1]
    stream = tokenizer.stream()
    text = "".join(map(stream.feed, ids))
    assert text == "x"
    assert "\ufffd" in stream.flush()
    assert stream.flush() == ""


def test_a_stream_goes_on_after_its_prefix_with_the_space_between(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    whole = tokenizer.encode("The quick brown fox jumps over", add_special=False)
    for cut in range(1, len(whole)):
        stream = tokenizer.stream(whole[:cut])
        text = "".join(map(stream.feed, whole[cut:])) + stream.flush()
        assert tokenizer.decode(whole[:cut]) + text == "The quick brown fox jumps over"


def test_a_prefix_that_ends_inside_a_character_is_completed(tokenizer_folder: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    whole = tokenizer.encode("ab🎉", add_special=False)
    stream = tokenizer.stream(whole[:-1])
    assert stream.feed(whole[-1]) == "🎉"


def test_an_endless_run_of_invalid_bytes_is_shown_within_a_bounded_window(tokenizer_folders: dict[str, Path]) -> None:
    for name, spelled in (("byte-level", "ÿ"), ("prepend", "<0xFF>")):
        tokenizer = read_tokenizer(tokenizer_folders[name])
        number = tokenizer._native.token_to_id(spelled)
        stream = tokenizer.stream()
        pieces = [stream.feed(number) for _ in range(300)]
        assert any(pieces)
        assert "".join(pieces) + stream.flush() == "\ufffd" * 300
        assert len(stream._window) < 200


def test_bytes_that_turn_invalid_later_lose_no_text_shown_before(tokenizer_folders: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["prepend"])
    good = tokenizer.encode("京", add_special=False)[-3:]
    bad = tokenizer._native.token_to_id("<0xFF>")
    stream = tokenizer.stream()
    text = "".join(map(stream.feed, [*good, bad, *tokenizer.encode("quick", add_special=False)])) + stream.flush()
    assert text in ("京\ufffd quick", "京\ufffdquick")


def test_cutting_and_padding_of_the_file_are_not_used(tokenizer_folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_folders["byte-level"])
    native = tokenizer._native
    whole = tokenizer.encode("one two three four five six seven")
    native.enable_truncation(max_length=3)
    native.enable_padding(length=64)
    native.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path).encode("one two three four five six seven") == whole


def test_a_folder_without_tokenizer_json_is_refused_naming_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no tokenizer\.json.*tokenizer\.model"):
        read_tokenizer(tmp_path)


def test_a_damaged_tokenizer_json_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match="is not a tokenizer"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer_folder: Path, model_folder) -> None:
    tokenizer = read_tokenizer(tokenizer_folder)
    fits: ModelSpec = read_model(model_folder("fits", vocab_size=tokenizer.size))
    check_vocabulary(tokenizer, fits)
    with pytest.raises(ModelError, match=str(tokenizer.size - 1)):
        check_vocabulary(tokenizer, read_model(model_folder("short", vocab_size=tokenizer.size - 1)))
