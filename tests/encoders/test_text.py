"""The text encoder against `transformers`' BERT, and what its vectors are for: telling instructions apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embodichain.encoders.text import TextEncoder, packaged_weights

SENTENCES = [
    "Pick up the red cube and put it on the green marker.",
    "Put the red cube onto the green target.",
    "Lift the long box with both arms.",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_equal_to_the_reference_implementation(encoder: TextEncoder) -> None:
    from transformers.models.bert.modeling_bert import BertModel
    from transformers.models.bert.tokenization_bert import BertTokenizer

    folder = str(packaged_weights())
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True).eval()
    inputs = BertTokenizer.from_pretrained(folder)(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    reference = torch.nn.functional.normalize(pooled, dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(SENTENCES), reference, atol=2e-6)


def test_unit_vectors_of_the_documented_shape(encoder: TextEncoder) -> None:
    vectors = encoder.encode(SENTENCES)
    assert vectors.shape == (3, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_paraphrases_are_closer_than_other_tasks(encoder: TextEncoder) -> None:
    similarity = encoder.encode(SENTENCES) @ encoder.encode(SENTENCES).T
    assert similarity[0, 1] > similarity[0, 2] + 0.2


def test_a_vector_does_not_depend_on_its_company(encoder: TextEncoder) -> None:
    alone = TextEncoder().encode([SENTENCES[0]])[0]
    np.testing.assert_array_equal(alone, encoder.encode(SENTENCES)[0])


def test_a_known_string_is_not_encoded_again(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder.encode(SENTENCES)
    monkeypatch.setattr(encoder, "_encode_one", lambda text: pytest.fail(f"encoded {text!r} again"))
    np.testing.assert_array_equal(encoder.encode(SENTENCES), first)


def test_a_long_text_is_cut_not_refused(encoder: TextEncoder) -> None:
    cut, longer = encoder.encode(["cube " * 254, "cube " * 2000])
    np.testing.assert_allclose(cut, longer, atol=1e-6)


def test_empty_instruction_and_missing_weights_are_errors(encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        encoder.encode(["  "])
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        TextEncoder(weights=tmp_path).encode(["lift"])


def test_import_and_encode_need_no_transformers() -> None:
    code = (
        "import sys; from embodichain.encoders.text import TextEncoder; "
        "TextEncoder().encode(['lift the box']); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
