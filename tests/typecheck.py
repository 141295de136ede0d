"""Checks every annotated call while tests run; an int may stand where a float is declared."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
