"""What ENGINE=llamacpp needs on a machine: the program, the base model's file, memory, and options."""

import shlex
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from personas.engine.context_window import context_beside, picture_tokens
from personas.engine.remote import llamacpp_command, xllamacpp_server
from personas.engine.remote.llamacpp_command import (
    LlamaOptions,
    LlamaProgram,
    NoLlamaServerError,
    find_program,
    missing_options,
    start_arguments,
)
from personas.engine.remote.llamacpp_memory import ServerMemory, kv_bytes_per_token
from personas.engine.remote.llamacpp_scorer import runs_of
from personas.engine.remote.llamacpp_slots import (
    ServerSlots,
    SlotPool,
    possible_candidates,
    reserved_slots,
)
from personas.errors import BaseModelError
from personas.models.base_model import BaseModel, load_config
from personas.models.gguf_base_file import find_base_gguf
from personas.models.rope_scaling import RopeScaling
from personas.models.vision_projector import find_projector
from tests.personas.llamacpp_engine.random_projector import write_projector

OPTIONS = LlamaOptions(
    Path("base.gguf"), (Path("voice.gguf"),), slots=1, context_tokens=1, candidates=2
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with nothing on it, and no wheel."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(llamacpp_command, "WHEEL", "no_such_wheel")
    return tmp_path


def program_in(folder, name="llama-server"):
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


class TestProgram:
    """The setting, then the PATH, then the wheel."""

    def test_the_first_that_is_there_is_taken(self, path, monkeypatch):
        with pytest.raises(NoLlamaServerError) as error:
            find_program("")
        for way in ("PATH", "LLAMA_SERVER", "install.sh"):
            assert way in error.value.advice
        monkeypatch.setattr(llamacpp_command, "WHEEL", "pytest")
        assert find_program("").command[:2] == (sys.executable, "-m")
        found = program_in(path)
        assert find_program("").command == (str(found),)
        other = program_in(path, "mine")
        assert find_program(str(other)).command == (str(other),)

    def test_a_setting_that_is_no_program_is_named(self, path):
        program_in(path)
        (path / "text").write_text("")
        for setting in (str(path / "missing"), str(path / "text")):
            with pytest.raises(NoLlamaServerError, match="LLAMA_SERVER is") as error:
                find_program(setting)
            assert setting in error.value.message

    def test_a_program_that_is_no_llama_server_has_none_of_its_options(self, path):
        """`true` and `ls` end without an error, too."""
        silent = program_in(path)
        old = program_in(path, "old")
        old.write_text("#!/bin/sh\necho '--model --parallel --ctx-size --lora --host --port'\n")
        assert "--model" in missing_options(find_program(str(silent)))
        assert missing_options(find_program(str(old))) == [
            "--cache-ram", "--kv-unified", "--lora-init-without-apply", "--no-webui",
        ]  # fmt: skip
        assert missing_options(LlamaProgram((str(path / "gone"),), "gone"))

    def test_the_wheels_server_has_all_of_them(self):
        program = LlamaProgram((sys.executable, "-m", llamacpp_command.WHEEL_SERVER), "the wheel")
        assert missing_options(program) == []


class TestOptions:
    """The options of llama-server, which the wheel's server reads too."""

    def test_the_wheels_server_reads_all_of_them(self, tmp_path):
        adapters = (tmp_path / "a.gguf", tmp_path / 'with, a "comma".gguf')
        options = LlamaOptions(tmp_path / "base.gguf", adapters, slots=3, context_tokens=2048)
        read = xllamacpp_server._parse(start_arguments(options, 8081))
        assert (read.model, read.parallel, read.ctx_size) == (str(options.model), 3, 3 * 2048)
        assert (read.cache_ram, read.host, read.port) == (0, "127.0.0.1", 8081)
        assert read.lora_init_without_apply and read.no_webui and not read.kv_unified
        assert xllamacpp_server.adapter_paths(read.lora) == [str(path) for path in adapters]
        typed = shlex.split(options.command_line())
        assert typed[0] == "llama-server" and typed[1:] == options.arguments()

    def test_candidates_have_slots_and_memory_of_their_own(self, tmp_path):
        options = LlamaOptions(
            tmp_path / "base.gguf", (), slots=3, context_tokens=4096, candidates=4
        )
        read = xllamacpp_server._parse(start_arguments(options, 8081))
        assert read.kv_unified and read.parallel == 3 + reserved_slots(4) == 3 + 3 + 4
        assert read.ctx_size == 3 * 4096 + 4 * 2048
        assert possible_candidates(read.parallel, 3, 4) == 4

    def test_a_projector_comes_with_a_limit_that_leaves_four_pictures_a_third(self, tmp_path):
        options = LlamaOptions(
            tmp_path / "base.gguf", (), slots=1, context_tokens=4096,
            projector=tmp_path / "mmproj.gguf",
        )  # fmt: skip
        read = xllamacpp_server._parse(start_arguments(options, 8081))
        assert read.mmproj == str(options.projector) and read.image_max_tokens == 341
        assert context_beside(4, 4096) + 4 * read.image_max_tokens <= 4096
        assert picture_tokens(131072) == 1400 and picture_tokens(2048) == 256

    def test_a_server_without_adapters_gets_no_option_of_theirs(self, tmp_path):
        options = LlamaOptions(tmp_path / "base.gguf", (), slots=1, context_tokens=2048)
        assert not any("lora" in argument for argument in options.arguments())


class TestBaseFile:
    """The very file that BASE_MODEL names, else ENGINE_MODEL."""

    def test_a_gguf_file_is_served_as_it_is(self, small_base):
        base, file, _ = small_base
        named = replace(base, name=str(file))
        assert find_base_gguf(named) == file
        assert find_base_gguf(base, str(file)) == file
        assert find_base_gguf(BaseModel("embedded", "", 0)).suffix == ".gguf"

    def test_safetensors_need_a_file_of_the_setting(self, small_base, tmp_path):
        base, file, _ = small_base
        with pytest.raises(BaseModelError, match="reads GGUF files") as error:
            find_base_gguf(base)
        assert "ENGINE_MODEL" in error.value.advice and str(base.folder) in error.value.advice
        (tmp_path / "text.gguf").write_text("text")
        with pytest.raises(BaseModelError, match=r"ENGINE_MODEL is .* no GGUF file"):
            find_base_gguf(base, str(tmp_path / "text.gguf"))
        scaled = replace(base, scaling=RopeScaling("yarn", 2.0))
        with pytest.raises(BaseModelError, match="RoPE scaling"):
            find_base_gguf(scaled, str(file))


class TestProjector:
    """One beside the model's file, made for a model of its name."""

    def test_one_of_the_models_name_is_taken_the_smallest_of_several(self, small_base, tmp_path):
        model = Path(shutil.copy(small_base[1], tmp_path / "tiny-Q4_K_M.gguf"))
        shutil.copy(model, tmp_path / "another.gguf")
        assert find_projector(model, 64) is None
        write_projector(tmp_path / "mmproj-other.gguf", 64, name="Other")
        write_projector(tmp_path / "mmproj-unnamed.gguf", 64)
        assert find_projector(model, 64) is None, "of which model of the folder?"
        large = write_projector(tmp_path / "tiny-mmproj-F32.gguf", 64, name="Base")
        assert find_projector(model, 64) == large
        with large.open("ab") as file:
            file.write(bytes(64))
        small = write_projector(tmp_path / "tiny-mmproj-Q8_0.gguf", 64, name="base")
        assert find_projector(model, 64) == small

    def test_of_two_sizes_of_a_family_it_is_the_models_own(self, tmp_path):
        """Their basename is the same; so are the widths of some."""
        for name in ("Sea-4B", "Sea-12B"):
            shutil.copy(
                write_projector(tmp_path / "it.gguf", 64, name=name), tmp_path / f"{name}.gguf"
            )
        (tmp_path / "it.gguf").unlink()
        small = write_projector(tmp_path / "mmproj-4b.gguf", 32, name="Sea-4B")
        large = write_projector(tmp_path / "mmproj-12b.gguf", 64, name="Sea-12B")
        assert find_projector(tmp_path / "Sea-4B.gguf", 32) == small
        assert find_projector(tmp_path / "Sea-12B.gguf", 64) == large
        tuned = write_projector(tmp_path / "tuned.gguf", 64, name="Sea-Tuned")
        assert find_projector(tuned, 64) == large, "the family's, of its width"
        same = write_projector(tmp_path / "mmproj-same.gguf", 64, name="Sea-4B")
        assert find_projector(tmp_path / "Sea-4B.gguf", 64) == same

    def test_alone_in_its_folder_a_model_has_one_of_its_width(self, small_base, tmp_path, caplog):
        model = Path(shutil.copy(small_base[1], tmp_path / "tiny-Q4_K_M.gguf"))
        write_projector(tmp_path / "mmproj-wide.gguf", 96)
        (tmp_path / "mmproj-cut.gguf").write_bytes(b"GGUF\x03")
        shutil.copy(model, tmp_path / "mmproj-model.gguf")
        assert find_projector(model, 64) is None
        assert "mmproj-cut.gguf cannot be read" in caplog.text
        assert f"is that of {model.name}" in caplog.text
        fitting = write_projector(tmp_path / "mmproj-f16.gguf", 64, name="Other")
        assert find_projector(model, 64) == fitting

    def test_a_program_without_its_options_is_named_only_with_one(self, path):
        old = program_in(path, "old")
        options = [one for one in start_arguments(OPTIONS, 1) if one.startswith("--")]
        old.write_text(f"#!/bin/sh\necho '{' '.join(options)}'\n")
        assert missing_options(find_program(str(old))) == []
        missing = missing_options(find_program(str(old)), Path("mmproj.gguf"))
        assert missing == ["--mmproj", "--image-max-tokens"]


class TestMemory:
    """Whether a second server fits, and what the doctor says then."""

    def test_a_promotion_is_said_to_start_a_second_server_or_to_restart(self):
        large = ServerMemory(need_bytes=2 * 2**30, free_bytes=5 * 2**30, total_bytes=16 * 2**30)
        assert large.has_room and "second server" in large.switch and "2.0 GiB" in large.switch
        # A tenth of the machine's memory has to stay free.
        small = replace(large, free_bytes=3 * 2**30)
        assert not small.has_room and "restarts the server between replies" in small.switch

    def test_keys_and_values_are_counted_by_layer_and_head(self, small_base):
        config = load_config(small_base[0])
        assert kv_bytes_per_token(config) == 2 * 2 * 2 * 2 * 16  # k and v, float16, layers, heads


class TestSlots:
    """A slot is read by the adapter that filled it, and conversations keep theirs."""

    def test_another_adapter_never_reads_a_slot(self):
        pool = SlotPool.of(1)
        with pool.use("a", [1, 2, 3]) as first:
            assert not first.reads_cache
        with pool.use("a", [1, 2, 3, 4]) as again:
            assert (again.number, again.reads_cache) == (first.number, True)
        with pool.use("b", [1, 2, 3, 4]) as other:
            assert (other.number, other.reads_cache) == (first.number, False)
        with pool.use("a", [1, 2, 3]) as back:
            assert not back.reads_cache
        pool.forget()
        with pool.use("a", [1, 2, 3]) as after:
            assert not after.reads_cache

    def test_a_server_with_fewer_slots_has_fewer_candidates_and_no_fewer_replies(self):
        assert [possible_candidates(slots, 4, 4) for slots in (4, 6, 7, 8, 9, 11, 20)] == [
            1, 1, 2, 2, 3, 4, 4,
        ]  # fmt: skip
        slots = ServerSlots(11, 4)
        assert [slot.number for slot in slots.cards.slots] == [3, 4, 5, 6]
        assert [slot.number for slot in slots.conversations.slots] == [7, 8, 9, 10]
        alone = ServerSlots(4)
        assert [slot.number for slot in alone.conversations.slots] == [0, 1, 2, 3]
        assert not alone.cards.slots

    def test_a_conversation_gets_its_slot_back_and_busy_ones_are_left(self):
        pool = SlotPool.of(2)
        with pool.use("a", [1, 2, 3]) as one, pool.use("a", [7, 8, 9]) as two:
            assert one.number != two.number
            with pool.use("a", [1, 2]) as third:
                assert third.number == -1
        with pool.use("a", [7, 8, 9, 10]) as again:
            assert (again.number, again.reads_cache) == (two.number, True)


def test_a_reply_is_scored_in_runs_without_parts_of_characters():
    assert list(runs_of([1, 2, -3, -4, 5], lambda token: token > 0)) == [(0, (1, 2)), (4, (5,))]
    assert not list(runs_of([-1], lambda token: token > 0))
