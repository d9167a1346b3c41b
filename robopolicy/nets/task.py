"""What a policy is told to do: a sentence, or a state to be reached, as the same few numbers (GRIF).

Myers et al. 2023 (arXiv 2307.00117): one encoder reads the sentence, another what changes from the first
state to the last; a symmetric contrast aligns the two, so that a policy that learned from many changes and
few sentences understands both.

Shape letters: B batch, D state, W words, E numbers of an embedding.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.errors import BadInput

WORDS = 2048
LONGEST = 24  # words of a sentence that are read


def tokens(sentences: Sequence[str]) -> Tensor:
    """(B, LONGEST) numbers of the words from 1 on, 0 where a sentence has ended; any word has a number."""
    rows = torch.zeros(len(sentences), LONGEST, dtype=torch.int64)
    for i, sentence in enumerate(sentences):
        words = re.findall(r"\w+", sentence.lower())[:LONGEST]
        rows[i, : len(words)] = torch.tensor([1 + zlib.crc32(w.encode()) % WORDS for w in words])
    return rows


def pretrained(sentences: Sequence[str], name: str) -> Tensor:
    """(B, H) mean last hidden state of a Hugging Face encoder whose weights are at hand.

    Args:
        sentences: what to read.
        name: folder of the encoder, or its name in the local cache; nothing is downloaded.

    Raises:
        BadInput: if it is not there.
    """
    try:
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
        model = AutoModel.from_pretrained(name, local_files_only=True, use_safetensors=True).eval()
    except (ImportError, OSError, ValueError) as e:
        raise BadInput("text_encoder", "an encoder of Hugging Face that is on this machine", e) from e
    read = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**read).last_hidden_state
    there = read["attention_mask"][..., None]
    return (hidden * there).sum(1) / there.sum(1)


def read(sentences: Sequence[str], encoder: str = "") -> Tensor:
    """What `TaskEncoder.of_words` takes: numbers of words, or hidden states of the encoder of that name."""
    return pretrained(sentences, encoder) if encoder else tokens(sentences)


class ToldDenoiser(nn.Module):
    """A denoiser that is also told what is seen, as seen in the light of what is to be done.

    Which of the things that are seen counts is a product of the two. A network that only adds them up learns
    that slowly or not at all.

    Args:
        net: takes a condition of `extra` more numbers.
        size: E, the last of the condition.
        seen: numbers of the condition before them.
    """

    def __init__(self, net: nn.Module, size: int, seen: int):
        super().__init__()
        self.net, self.size = net, size
        self.look, self.choose = (nn.Linear(n, self.extra(size)) for n in (seen, size))

    @staticmethod
    def extra(size: int) -> int:
        """By how many numbers the condition grows."""
        return 4 * size

    def forward(self, x: Tensor, level: Tensor, cond: Tensor) -> Tensor:
        """As `net`, for a condition (B, seen + E)."""
        chosen = self.look(cond[:, : -self.size]) * self.choose(cond[:, -self.size :])
        return self.net(x, level, torch.cat([cond, chosen], 1))


class TaskEncoder(nn.Module):
    """Sentences and changes as unit vectors of E numbers.

    Args:
        state: D.
        size: E.
        text: numbers per sentence that a pretrained encoder gives, H; 0 for words of one's own.
    """

    def __init__(self, state: int, size: int, text: int = 0):
        super().__init__()
        self.size, width = size, 4 * size
        self.change = nn.Sequential(
            nn.Linear(2 * state, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, size)
        )
        self.words = None if text else nn.Embedding(WORDS + 1, width, padding_idx=0)
        self.sentence = nn.Sequential(nn.Linear(text or width, width), nn.SiLU(), nn.Linear(width, size))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def of_change(self, start: Tensor, goal: Tensor) -> Tensor:
        """(B, E) for normalised states (B, D) at the beginning and as they are to be."""
        return functional.normalize(self.change(torch.cat([start, goal - start], -1)), dim=-1)

    def of_words(self, sentences: Tensor) -> Tensor:
        """(B, E) for sentences as `read` gives them."""
        if self.words is not None:
            there = (sentences > 0).sum(1, keepdim=True).clamp_min(1)
            sentences = self.words(sentences).sum(1) / there
        return functional.normalize(self.sentence(sentences), dim=-1)

    def contrast(self, words: Tensor, changes: Tensor) -> Tensor:
        """Symmetric InfoNCE of pairs (B, E), (B, E): which sentence goes with which change, and back."""
        logits = self.log_scale.clamp(max=4.6).exp() * words @ changes.T
        pairs = torch.arange(len(words), device=words.device)
        there, back = (functional.cross_entropy(x, pairs) for x in (logits, logits.T))
        return (there + back) / 2
