"""A model folder whose UNet hears through another audio encoder: its audio projection is new,
everything else is that of the model it is made from.

`python experiments/real_speakers/with_encoder.py MODEL OUT --encoder whisper --whisper FILE`; `mel`
is the control, `random` the same Whisper with new weights.
"""

import argparse
from pathlib import Path

import torch
from read_audio import with_new_weights

from latentsync.models import LipSyncModel, MelAudioEncoder, UNet
from latentsync.models.audio.encoders import AudioEncoder
from latentsync.weights import load_official_whisper

OWN = "project_audio."
TOKENS = {"mel": (24, 6), "whisper": (60, 15), "random": (60, 15)}  # per frame, in and out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", choices=TOKENS, required=True)
    parser.add_argument("--whisper", type=Path)
    options = parser.parse_args()
    if options.out.exists():
        raise FileExistsError(f"{options.out} is there")
    model = LipSyncModel.from_pretrained(options.model)
    encoder = encoder_of(options.encoder, options.whisper)
    tokens_in, tokens_out = TOKENS[options.encoder]
    projection = {"tokens_in": tokens_in, "dim_in": encoder.width, "tokens_out": tokens_out}
    torch.manual_seed(0)
    unet = UNet.from_config({**model.unet.config, "audio_projection": projection})
    kept = {k: v for k, v in model.unet.state_dict().items() if not k.startswith(OWN)}
    lacking, unknown = unet.load_state_dict(kept, strict=False)
    assert not unknown and all(name.startswith(OWN) for name in lacking)
    LipSyncModel(
        unet=unet,
        codec=model.codec,
        audio_encoder=encoder,
        process=model.process,
        model_format=model.format,
        training=model.training,
    ).save_pretrained(options.out)


def encoder_of(name: str, whisper: Path | None) -> AudioEncoder:
    if name == "mel":
        return MelAudioEncoder()
    if whisper is None:
        raise ValueError(f"--encoder {name} needs --whisper=")
    return with_new_weights(whisper) if name == "random" else load_official_whisper(whisper)


if __name__ == "__main__":
    main()
