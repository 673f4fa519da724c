"""Foreign text in a report: every character is there, and none of it does anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unlearn_bench.reports.document.escape import (
    LONGEST,
    parts,
    to_code,
    to_html,
    to_markdown,
    visible,
    words_to_html,
)

from .conftest import HIDDEN, NASTY
from .pages import Reader, rendered

ANY = st.text(st.characters(), max_size=60)


@given(ANY)
def test_html_says_the_text_and_holds_no_element_of_it(text):
    page = Reader(to_html(text or "x"))
    assert page.text == "".join(part for part, _ in parts(text or "x"))
    assert set(page.tags) <= {"bdi", "span"}


@pytest.mark.parametrize("hidden", HIDDEN)
def test_unseen_characters_are_shown_by_their_number(hidden):
    name = f"U+{ord(hidden):04X}"
    for shown in (visible(hidden), str(to_html(hidden)), to_code(hidden), to_markdown(hidden)):
        assert name in shown
        assert hidden not in shown


def test_seen_characters_stay():
    text = "naïve 日本語 Ω עברית 👍 tab\tand\nline"
    assert visible(text) == text
    assert text in to_html(text)


@given(ANY.filter(str.strip))
def test_a_code_span_says_the_text_and_nothing_else(text):
    page = rendered(f"- {to_code(text)}\n")
    assert page.text.strip("\n").strip() == visible(text, kept="").strip()
    assert set(page.tags) <= {"ul", "li", "code"}


@given(ANY)
def test_escaped_text_is_text_in_paragraphs_and_tables(text):
    shown = to_markdown(text)
    words = " ".join(visible(text).split())
    page = rendered(f"- {shown}x\n")
    assert page.text.strip() == f"{words}x"
    assert set(page.tags) <= {"ul", "li"}
    page = rendered(f"| a | b |\n| --- | --- |\n| {shown} | last |\n")
    assert page.tags.count("td") == 2
    assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert words in page.text


def test_addresses_do_not_become_links():
    for text in ("see https://evil.example/x", "www.evil.example", NASTY):
        assert rendered(to_code(text)).tags == ["p", "code"]
        assert "://" not in to_markdown(text)
        assert "www." not in to_markdown(text)


def test_long_text_is_cut_and_says_so():
    shown = str(to_html("a" * (LONGEST + 7)))
    assert "7 more characters" in shown
    assert "a" * (LONGEST + 1) not in shown


def test_our_own_words_keep_code_and_strong_and_nothing_else():
    shown = str(words_to_html("**Verdict.** `rmu<b>` beats <i>base</i>."))
    assert shown == "<strong>Verdict.</strong> <code>rmu&lt;b&gt;</code> beats &lt;i&gt;base&lt;/i&gt;."
