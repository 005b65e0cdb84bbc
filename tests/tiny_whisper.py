"""A Whisper of two layers that is really trained and converted, and knows two sounds and their texts,
in two languages. And sounds like speech, recorded as Ogg Opus, as Discord's clients do.
"""

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

SAMPLE_RATE_HZ = 16_000
OPUS_RATE_HZ = 48_000
TEXTS = {"en": "where is the ferry", "de": "wo ist die fähre"}
PITCHES_HZ = {"en": 110.0, "de": 210.0}
FORMANTS_HZ = {
    "en": ((750, 1200, 2600), (450, 850, 2500)),
    "de": ((320, 2300, 3000), (480, 1900, 2600)),
}
"""Resonances of two vowels each: those of "a" and "o", and of "i" and "e"."""
UNKNOWN = "<unknown>"
STEPS = 150


def speech(language: str, seconds: float = 2.0) -> Any:
    """Return vowels in the rhythm of syllables: what a detector of voices takes for speech."""
    count = int(seconds * SAMPLE_RATE_HZ)
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    pitch_hz = PITCHES_HZ[language] * (1 + 0.08 * np.sin(2 * np.pi * 3 * time_s))
    phase = np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    vowel = (np.floor(time_s * 4) % 2).astype(int)
    sound = np.zeros(count)
    for harmonic in range(1, 30):
        frequency_hz = harmonic * pitch_hz
        gain = np.zeros(count)
        for index, peaks in enumerate(FORMANTS_HZ[language]):
            for peak in peaks:
                gain += (vowel == index) / (1 + ((frequency_hz - peak) / 120) ** 2)
        sound += gain / harmonic**0.5 * np.sin(2 * np.pi * harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * time_s) * 0.5 + 0.6, 0, 1)
    sound *= syllables
    noise = np.random.default_rng(0).normal(scale=0.002, size=count)
    return (0.5 * sound / np.abs(sound).max() + noise).astype(np.float32)


def ogg_opus(sound: Any, *, codec: str = "libopus", repeat: int = 1) -> bytes:
    """Encode a sound, so many times in a row, as Discord's clients do; `codec` is another of Ogg's."""
    import av

    written = io.BytesIO()
    with av.open(written, "w", format="ogg") as container:
        stream: Any = container.add_stream(codec, rate=OPUS_RATE_HZ)
        stream.layout = "mono"
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=OPUS_RATE_HZ)
        samples = np.tile((sound * 32767).astype(np.int16), repeat)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        for packet in stream.encode(None):
            if packet.size:  # FLAC's encoder ends with one that is empty
                container.mux(packet)
    return written.getvalue()


def build_tiny_whisper(folder: Path) -> Path:
    """Train and convert the model; return its folder, which faster-whisper loads."""
    import ctranslate2
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    source = folder / "source"
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sot = tokenizer.token_to_id("<|startoftranscript|>")
    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=sot,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    _train(model, tokenizer)
    model.save_pretrained(source)
    tokenizer.save(str(source / "tokenizer.json"))
    WhisperFeatureExtractor().save_pretrained(source)
    (source / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|endoftext|>",
                "unk_token": UNKNOWN,
            }
        )
    )
    converter = ctranslate2.converters.TransformersConverter(
        str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]
    )
    converted = Path(converter.convert(str(folder / "model"), quantization="float32"))
    config = json.loads((converted / "config.json").read_text())
    config["lang_ids"] = [tokenizer.token_to_id(f"<|{language}|>") for language in TEXTS]
    (converted / "config.json").write_text(json.dumps(config))
    return converted


def _tokenizer() -> Tokenizer:
    """Return a tokenizer of these words, with the special tokens where Whisper has them."""
    # CTranslate2 knows a multilingual model by the token without a letter.
    words = [UNKNOWN, "", *dict.fromkeys(" ".join(TEXTS.values()).split())]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{language}|>" for language in TEXTS]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>"]
    special += [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _train(model: Any, tokenizer: Tokenizer) -> None:
    """Train until the model says each sound's text, after its language."""
    import torch
    from faster_whisper.audio import pad_or_trim
    from faster_whisper.feature_extractor import FeatureExtractor

    # As faster-whisper computes them: transformers pads what is short with silence, not with zeros.
    heard_frames = [pad_or_trim(FeatureExtractor()(speech(language))[:, :-1]) for language in TEXTS]
    inputs = torch.tensor(np.stack(heard_frames))
    rows = []
    for language, text in TEXTS.items():
        words = ["<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|0.00|>"]
        words += [*text.split(), "<|2.00|>", "<|endoftext|>"]
        rows.append([tokenizer.token_to_id(word) for word in words])
    labels = torch.tensor(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    encoder = model.get_encoder()
    # Random features tell two sounds apart, if they outweigh the positions; to train them takes long.
    for convolution in (encoder.conv1, encoder.conv2):
        torch.nn.init.kaiming_normal_(convolution.weight)
    with torch.no_grad():
        encoder.embed_positions.weight.zero_()
        heard = encoder(inputs)
    positions = model.get_decoder().embed_positions.weight
    positions.requires_grad_(False).zero_()  # each word follows from the one before it
    for _ in range(STEPS):
        logits = model(encoder_outputs=heard, decoder_input_ids=labels[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss < 0.05
