"""LanceDB's full-text search, as stores use it: how texts become words, and how a query asks for them.

Words are cut as ICU cuts them, so that Chinese and Japanese have words too, and English ones are reduced to
their stems ("dogs" finds "dog"), which does no harm to other languages, as queries are treated alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lancedb
from lancedb.query import BooleanQuery, FullTextOperator, FullTextQuery, MatchQuery, Occur, PhraseQuery


def text_index(column: str) -> Any:
    """The full-text index of a column."""
    return lancedb.index.FTS(
        base_tokenizer="simple" if column == "path" else "icu",  # of IMG_2024_lake.jpg, icu makes one word
        stem=True,
        remove_stop_words=False,
        ascii_folding=True,
        with_position=True,
    )


def text_query(words: str, phrases: Sequence[str], columns: Sequence[str], every_word: bool) -> FullTextQuery:
    """Rows with some of the words (or every one) in any of the columns, and every phrase in one of them."""
    operator = FullTextOperator.AND if every_word else FullTextOperator.OR
    some_words = [(Occur.SHOULD, MatchQuery(words, column, operator=operator)) for column in columns]
    if not phrases:
        return BooleanQuery(some_words)
    each_phrase = [
        (Occur.MUST, BooleanQuery([(Occur.SHOULD, PhraseQuery(phrase, column)) for column in columns]))
        for phrase in phrases
    ]
    return BooleanQuery([*each_phrase, *some_words])
