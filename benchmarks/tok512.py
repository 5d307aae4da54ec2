"""The tokenizer of the shared stories: pieces of text by number, in the form of llama2.c."""

from __future__ import annotations

import struct
from pathlib import Path

SPACE = b" "
BYTES = 3
"""Where single bytes begin among the tokens, behind <unk>, <s> and </s>."""


class Tokenizer:
    """Encodes by the longest piece that fits, and decodes.

    Args:
        path: ``tok512.bin``: a length, then per token a score, a length and its bytes.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.pieces: list[bytes] = []
        place = 4
        while place < len(data):
            _, length = struct.unpack_from("<fi", data, place)
            self.pieces.append(data[place + 8 : place + 8 + length])
            place += 8 + length
        first = BYTES + 256
        self._numbers = {piece: i for i, piece in enumerate(self.pieces) if i >= first}
        self._longest = max(map(len, self._numbers))

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without a start token."""
        data, tokens, place = SPACE + text.encode(), [], 0
        while place < len(data):
            for length in range(self._longest, 0, -1):
                number = self._numbers.get(data[place : place + length])
                if number is not None:
                    break
            else:
                number, length = BYTES + data[place], 1
            tokens.append(number)
            place += length
        return tokens

    def length(self, token: int) -> int:
        """Bytes of text that a token stands for."""
        return 1 if token < BYTES + 256 else len(self.pieces[token])

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens; start and end tokens are left out."""
        parts = []
        for token in tokens:
            if BYTES <= token < BYTES + 256:
                parts.append(bytes([token - BYTES]))
            elif token >= BYTES:
                parts.append(self.pieces[token])
        return b"".join(parts).decode(errors="replace").strip()
