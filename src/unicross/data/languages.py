"""Languages by their two-letter codes (ISO 639-1), as columns and files are named after them."""

from __future__ import annotations

import re

from unicross.data.items import CaptionKind

_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz
ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik
io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml
mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd
se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi
vo wa wo xh yi yo za zh zu
"""
CODES = frozenset(_CODES.split())


def language_of(word: str) -> str | None:
    """The code in a word that is a language: `de`, `zh-Hans`, `pt_BR`; None for another word."""
    code = re.split(r"[-_]", word.strip().lower(), maxsplit=1)[0]
    return code if code in CODES and re.fullmatch(r"[A-Za-z]{2}([-_][A-Za-z0-9]+)*", word.strip()) else None


def kind_of(column: str) -> CaptionKind:
    """The field and language that the name of a column says: `title`, `tags.en`, `en.label`, `title_de`."""
    words = column.split(".")
    field, mark, last = words[-1].rpartition("_")
    if mark and field and language_of(last):
        words[-1:] = [field, last]
    at = next((n for n in reversed(range(len(words))) if language_of(words[n])), None)
    if at is None or len(words) == 1:
        return CaptionKind(column)
    return CaptionKind(".".join(words[:at] + words[at + 1 :]), language_of(words[at]))
