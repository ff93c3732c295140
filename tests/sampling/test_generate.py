"""Facts about `unipref.sampling.generate`."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.errors import ConfigError
from unipref.sampling import generate
from unipref.sampling._generate import _Draw

END = 0


class Letters:
    """Token i is the letter i after 'a'; 0 ends."""

    eos_token_id = END
    pad_token_id = None

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(97 + i) for i in ids if i != END)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=END, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far from uniform
    return model


CONTEXTS = [[1, 5, 9], [1, 2], [1, 7, 7, 7, 7, 3, 4], [1], [1, 20, 11, 4], [1, 2]]


def draw(model, contexts=CONTEXTS, **options):
    return generate(model, Letters(), contexts, **{"max_new_tokens": 12, "seed": 3, **options})


def test_a_response_does_not_depend_on_the_other_prompts(model):
    together = draw(model)
    alone = [draw(model, batch_tokens=1)[i] for i in range(len(CONTEXTS))]
    assert together == alone
    assert draw(model, CONTEXTS[::-1][1:])[::-1] == together[:-1]


def test_a_prompt_that_occurs_twice_gets_two_draws(model):
    samples = draw(model)
    assert CONTEXTS[1] == CONTEXTS[5]
    assert samples[1].ids != samples[5].ids


def test_another_seed_gives_other_text(model):
    assert draw(model) != draw(model, seed=4)


def test_greedy_takes_the_likeliest_token_of_the_plain_model(model):
    sample = draw(model, [[1, 5, 9]], temperature=0.0, max_new_tokens=5)[0]
    ids = [1, 5, 9]
    for token in sample.ids:
        with torch.no_grad():
            assert model(torch.tensor([ids])).logits[0, -1].argmax().item() == token
        ids.append(token)


def test_a_response_ends_with_its_first_end_token_or_was_not_stopped(model):
    samples = draw(model, [[1, i] for i in range(2, 24)], temperature=2.0)
    assert {sample.stopped for sample in samples} == {True, False}
    for sample in samples:
        assert END not in sample.ids[:-1]
        assert sample.stopped == (sample.ids[-1] == END)
        assert sample.stopped or len(sample.ids) == 12
        assert sample.text == Letters().decode(sample.ids, True)


def test_modes_and_generation_settings_are_put_back_and_settings_of_the_hub_are_not_used(model):
    plain = draw(model, temperature=0.0)
    settings = model.generation_config
    settings.repetition_penalty, settings.temperature, settings.do_sample = 50.0, 9.0, True
    model.train()
    model.model.layers[0].eval()
    try:
        assert draw(model, temperature=0.0) == plain
        assert model.generation_config is settings
        assert model.training
        assert model.model.layers[1].training
        assert not model.model.layers[0].training
    finally:
        settings.repetition_penalty = settings.temperature = settings.do_sample = None
        model.eval()


# peft 0.19 asks transformers 5.23 for an attribute under its old name
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_changes_the_text_and_is_left_on(model):
    from copy import deepcopy

    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    adapted = get_peft_model(deepcopy(model), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    assert draw(adapted) == draw(model)  # a fresh adapter is the identity
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert draw(adapted) != draw(model)


def test_draws_follow_the_distribution():
    # 20,000 draws; each count is within 4.5 standard errors of its mean with probability 1 - 7e-6.
    n, p = 20_000, torch.tensor([0.1, 0.6, 0.05, 0.25], dtype=torch.float64)
    uniforms = torch.as_tensor(np.random.default_rng(0).random((n, 1)))
    kept = _Draw(uniforms, 0, 1.0, 1.0)(torch.zeros(n, 0), p.log().expand(n, 4))
    counts = kept.argmax(-1).bincount(minlength=4)
    assert ((counts - n * p).abs() < 4.5 * (n * p * (1 - p)).sqrt()).all()
    assert (kept.isfinite().sum(-1) == 1).all()


def test_top_p_keeps_the_fewest_tokens_that_hold_it_and_temperature_sharpens():
    n, p = 4000, torch.tensor([0.1, 0.6, 0.05, 0.25], dtype=torch.float64)
    uniforms = torch.as_tensor(np.random.default_rng(1).random((n, 1)))
    drawn = _Draw(uniforms, 0, 1.0, 0.8)(torch.zeros(n, 0), p.log().expand(n, 4)).argmax(-1)
    assert set(drawn.tolist()) == {1, 3}
    share = (drawn == 1).double().mean().item()
    assert abs(share - 0.6 / 0.85) < 4.5 * (0.7 * 0.3 / n) ** 0.5
    cold = _Draw(uniforms, 0, 0.01, 1.0)(torch.zeros(n, 0), p.log().expand(n, 4)).argmax(-1)
    assert set(cold.tolist()) == {1}


def test_the_largest_uniform_never_draws_an_impossible_token():
    uniforms = torch.tensor([[1 - 2**-53], [0.0]], dtype=torch.float64)
    scores = torch.tensor([float("-inf"), 0.0, 0.0, float("-inf")]).expand(2, 4)
    assert _Draw(uniforms, 0, 1.0, 1.0)(torch.zeros(2, 0), scores).argmax(-1).tolist() == [2, 1]


def test_no_contexts_give_no_samples_and_progress_counts_every_one(model):
    done = []
    assert draw(model, []) == []
    draw(model, batch_tokens=30, progress=done.append)
    assert sum(done) == len(CONTEXTS)
    assert len(done) > 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1.0}, "temperature"), ({"top_p": 0.0}, "top_p")],
)
def test_settings_out_of_range_are_refused_by_name(model, options, words):
    with pytest.raises(ConfigError, match=words):
        draw(model, **options)


def test_an_empty_context_is_refused(model):
    with pytest.raises(ConfigError, match="context 1 has no tokens"):
        draw(model, [[1], []])
