"""Sentences and changes: read the same everywhere, aligned by the contrast."""

import math

import pytest
import torch
from tiny import normal
from transformers import BertConfig, BertModel, BertTokenizerFast

from robopolicy.errors import BadInput
from robopolicy.nets.mlp import MlpDenoiser
from robopolicy.nets.task import LONGEST, TaskEncoder, ToldDenoiser, read, tokens

D, E = 5, 8


def test_tokens_are_words_whatever_their_case_and_signs():
    rows = tokens(["Touch the red block!", "touch the RED block", "touch the blue block", ""])
    assert rows.shape == (4, LONGEST)
    assert torch.equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).sum() == 1
    assert (rows[3] == 0).all()
    assert torch.equal(tokens(["a " * 100])[0], tokens(["a"])[0][:1].expand(LONGEST))


def test_embeddings_have_length_one_and_rows_do_not_depend_on_each_other():
    encoder = TaskEncoder(D, E)
    sentences, start, goal = tokens(["go up", "go down now", "wait"]), normal(3, D), normal(3, D, seed=1)
    for whole, alone in (
        (encoder.of_words(sentences), [encoder.of_words(sentences[i : i + 1]) for i in range(3)]),
        (
            encoder.of_change(start, goal),
            [encoder.of_change(start[i : i + 1], goal[i : i + 1]) for i in range(3)],
        ),
    ):
        assert torch.allclose(whole.norm(dim=-1), torch.ones(3), atol=1e-5)
        assert torch.allclose(torch.cat(alone), whole, atol=1e-6)


def test_contrast_is_least_for_pairs_and_even_for_all_alike():
    encoder = TaskEncoder(D, E)
    apart = torch.eye(4, E)
    pairs, mixed = encoder.contrast(apart, apart), encoder.contrast(apart, apart.roll(1, 0))
    alike = encoder.contrast(apart[:1].expand(4, E), apart[:1].expand(4, E))
    assert pairs < alike < mixed
    assert float(alike.detach()) == pytest.approx(math.log(4))


def test_contrast_teaches_which_sentence_goes_with_which_change():
    torch.manual_seed(0)
    encoder = TaskEncoder(D, E)
    sentences, start, goal = tokens(["up", "down", "left", "right"]), normal(4, D), normal(4, D, seed=1)
    optimiser = torch.optim.Adam(encoder.parameters(), 1e-2)
    for _ in range(60):
        loss = encoder.contrast(encoder.of_words(sentences), encoder.of_change(start, goal))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    match = encoder.of_words(sentences) @ encoder.of_change(start, goal).T
    assert (match.argmax(1) == torch.arange(4)).all()
    assert (match.argmax(0) == torch.arange(4)).all()


def test_pretrained_encoder_is_read_from_its_folder_and_padding_changes_nothing(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "go", "up", "now"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    small = BertConfig(
        vocab_size=7, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(small).save_pretrained(tmp_path)
    together, alone = read(["go up now", "go"], str(tmp_path)), read(["go"], str(tmp_path))
    assert together.shape == (2, 12)
    assert torch.allclose(together[1:], alone, atol=1e-5)
    assert TaskEncoder(D, E, text=12).of_words(together).shape == (2, E)
    with pytest.raises(BadInput, match="text_encoder"):
        read(["go"], str(tmp_path / "elsewhere"))


def test_denoiser_told_which_of_two_things_counts_learns_it_where_a_sum_does_not():
    which, many = torch.arange(512) % 2, normal(512, 4)
    told = torch.nn.functional.one_hot(which, E).float()
    wanted = many.unflatten(1, (2, 2))[torch.arange(512), which][:, None]
    cond, level = torch.cat([many, told], 1), torch.zeros(512, dtype=torch.int64)

    def left(make):
        """Error, as a share of what there was, after a short training."""
        torch.manual_seed(0)
        net = make()
        adam = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(150):
            error = (net(torch.zeros_like(wanted), level, cond) - wanted).square().mean()
            adam.zero_grad()
            error.backward()
            adam.step()
        return float(error.detach() / wanted.square().mean())

    def plain(extra=0):
        return MlpDenoiser(1, 2, 4 + E + extra, 16, 1, 1)

    assert left(lambda: ToldDenoiser(plain(ToldDenoiser.extra(E)), E, 4)) < 0.05
    assert left(plain) > 0.1
