"""Models of the zoo that see and hear, those with a state or a recurrence, and those that no exporter takes."""

from __future__ import annotations

from typing import Any

import handmade
from zoo_entry import Built, listed, make, shake


def images(model: Any, *, size: int = 64, channels: int = 3, most: int = 8) -> Built:
    """A model of images of one size, in batches."""
    import torch

    return {
        "model": model,
        "kwargs": {"pixel_values": torch.randn(2, channels, size, size)},
        "dynamic": {"pixel_values": {0: ("batch", 1, most)}},
        "points": [{"batch": 1}, {"batch": 3}],
    }


@listed("vision", "resnet 18, whole", published=True)
def resnet() -> Built:
    config = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
    return images(make("resnet", "ResNetForImageClassification", **config, num_labels=10))


@listed("vision", "convnext tiny, 7 of 18 blocks", published=True)
def convnext() -> Built:
    config = {"hidden_sizes": [96, 192, 384, 768], "depths": [1, 2, 3, 1]}
    return images(make("convnext", "ConvNextForImageClassification", **config, num_labels=10))


@listed("vision", "convnext v2, small (global response norm)")
def convnextv2() -> Built:
    config = {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2], "image_size": 64}
    return images(make("convnextv2", "ConvNextV2ForImageClassification", **config, num_labels=10))


@listed("vision", "vit base, 2 of 12 layers", published=True)
def vit() -> Built:
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12}
    return images(make("vit", "ViTForImageClassification", **config, image_size=64, num_labels=10))


@listed("vision", "dinov2 small, 3 of 12 layers", published=True)
def dinov2() -> Built:
    config = {"hidden_size": 384, "num_hidden_layers": 3, "num_attention_heads": 6, "image_size": 56, "patch_size": 14}
    return images(make("dinov2", "Dinov2Model", **config), size=56)


@listed("vision", "swin tiny, 6 of 12 layers (shifted windows)", published=True)
def swin() -> Built:
    config = {"embed_dim": 96, "depths": [2, 2, 2], "num_heads": [3, 6, 12], "window_size": 4, "image_size": 64}
    return images(make("swin", "SwinForImageClassification", **config, num_labels=10))


@listed("vision", "mobilenet v2, whole", published=True)
def mobilenet_v2() -> Built:
    return images(make("mobilenet_v2", "MobileNetV2ForImageClassification", image_size=64, num_labels=10))


@listed("vision", "regnet, small (groups, squeeze and excite)")
def regnet() -> Built:
    config = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 2, 2, 1], "groups_width": 8}
    return images(make("regnet", "RegNetForImageClassification", **config, num_labels=10))


@listed("vision", "segformer b0, whole", published=True)
def segformer() -> Built:
    return images(make("segformer", "SegformerForSemanticSegmentation", num_labels=5))


@listed("vision", "efficientnet b0, half of its blocks", published=True)
def efficientnet() -> Built:
    config = {"width_coefficient": 1.0, "depth_coefficient": 0.5, "image_size": 64, "hidden_dim": 1280, "num_labels": 10}
    return images(make("efficientnet", "EfficientNetForImageClassification", **config))


@listed("vision", "levit, small (attention biases, batch norm instead of layer norm)")
def levit() -> Built:
    config = {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [2, 2, 2], "key_dim": [8, 8, 8]}
    return images(make("levit", "LevitForImageClassification", **config, image_size=64, num_labels=10))


@listed("vision", "poolformer, small (pooling instead of attention)")
def poolformer() -> Built:
    config = {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2], "num_labels": 10}
    return images(make("poolformer", "PoolFormerForImageClassification", **config))


@listed("vision", "mobilevit xx-small, whole (unfolds feature maps)", published=True)
def mobilevit() -> Built:
    config = {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "expand_ratio": 2.0}
    return images(make("mobilevit", "MobileViTForImageClassification", **config, image_size=64, num_labels=10))


@listed("vision", "beit, 3 layers (relative position bias)")
def beit() -> Built:
    config = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 64}
    return images(make("beit", "BeitModel", **config, use_relative_position_bias=True))


@listed("vision", "clip, 3 layers of vision and 3 of text, compared")
def clip() -> Built:
    import torch
    from zoo_language import ragged

    side = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**side, "vocab_size": 199, "max_position_embeddings": 64, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    model = make("clip", "CLIPModel", text_config=text, vision_config={**side, "image_size": 64, "patch_size": 16})
    return {
        "model": model,
        "kwargs": {
            "input_ids": torch.randint(3, 199, (2, 11)),
            "pixel_values": torch.randn(3, 3, 64, 64),
            "attention_mask": ragged(2, 11),
        },
        "dynamic": {
            "input_ids": {0: ("texts", 1, 8), 1: ("length", 1, 64)},
            "attention_mask": {0: "texts", 1: "length"},
            "pixel_values": {0: ("images", 1, 8)},
        },
        "points": [{"texts": 1, "images": 2, "length": 16}, {"texts": 3, "images": 1, "length": 24}],
    }


@listed("vision", "detr, resnet backbone, 2 layers a side (boxes, no dropping of overlaps)")
def detr() -> Built:
    backbone = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    side = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 10}
    built = images(
        make("detr", "DetrForObjectDetection", **side, **heads, backbone_config={"model_type": "resnet", **backbone})
    )
    return built


@listed("speech", "wav2vec2, 3 layers (7 convolutions over the wave)")
def wav2vec2() -> Built:
    import torch

    config = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 32}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "conv_dim": [32] * 7}
    model = make("wav2vec2", "Wav2Vec2ForCTC", **config, **positions)
    return {
        "model": model,
        "kwargs": {"input_values": torch.randn(2, 4000)},
        "dynamic": {"input_values": {0: ("batch", 1, 4), 1: ("samples", 1600, 16000)}},
        "points": [{"batch": 1, "samples": 3200}, {"batch": 3, "samples": 4800}],
    }


@listed("speech", "whisper tiny, 2 of 4 layers a side", published=True)
def whisper() -> Built:
    import torch

    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 6, "decoder_attention_heads": 6}
    wide = {"d_model": 384, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "max_source_positions": 150}
    model = make("whisper", "WhisperForConditionalGeneration", **layers, **wide)
    return {
        "model": model,
        "kwargs": {
            "input_features": torch.randn(2, 80, 300),
            "decoder_input_ids": torch.randint(3, 50000, (2, 7)),
            "use_cache": False,
        },
        "dynamic": {"input_features": {0: ("batch", 1, 4)}, "decoder_input_ids": {0: "batch", 1: ("target", 1, 64)}},
        "points": [{"batch": 1, "target": 12}, {"batch": 3, "target": 8}],
    }


@listed("speech", "audio spectrogram transformer, 3 layers")
def spectrogram_transformer() -> Built:
    import torch

    config = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = make("audio-spectrogram-transformer", "ASTForAudioClassification", **config, max_length=128, num_mel_bins=64)
    return {
        "model": model,
        "kwargs": {"input_values": torch.randn(2, 128, 64)},
        "dynamic": {"input_values": {0: ("batch", 1, 8)}},
        "points": [{"batch": 1}, {"batch": 3}],
    }


def free_images(model: Any, *, multiple: int = 1) -> Built:
    """A hand-written model of images of any height and width."""
    import torch

    model = shake(model.eval())
    return {
        "model": model,
        "args": (torch.randn(2, 3, 64, 48),),
        "dynamic": {"image": {0: ("batch", 1, 8), 2: ("height", 32, 256), 3: ("width", 32, 256)}},
        "points": [{"batch": 1, "height": 64, "width": 64}, {"batch": 3, "height": 48, "width": 80}],
    }


@listed("hand-written", "convolutions, batch norms, ReLUs in place")
def plain_convnet() -> Built:
    return free_images(handmade.PlainConvNet())


@listed("hand-written", "dense connections, 2 blocks of 5 layers")
def densenet() -> Built:
    return free_images(handmade.DenseNet())


@listed("hand-written", "U-Net of 4 levels")
def unet() -> Built:
    built = free_images(handmade.UNet())
    return {**built, "dynamic": {"image": {0: ("batch", 1, 8)}}, "points": [{"batch": 1}, {"batch": 3}]}


@listed("hand-written", "depthwise, grouped, dilated and transposed convolutions")
def odd_convolutions() -> Built:
    return free_images(handmade.OddConvolutions())


@listed("hand-written", "thirty equal mixer layers")
def mixer() -> Built:
    import torch

    built = {"args": (torch.randn(2, 8, 32),), "dynamic": {"x": {0: ("batch", 1, 16)}}, "points": [{"batch": 1}, {"batch": 5}]}
    return {"model": shake(handmade.Mixer()), **built}


@listed("state", "causal filter over a stream, two states kept between calls")
def streaming_filter() -> Built:
    import torch

    built = {"args": (torch.randn(1, 4, 16),), "dynamic": {"chunk": {2: ("samples", 4, 256)}}}
    return {"model": shake(handmade.StreamingFilter()), **built, "points": [{"samples": 16}, {"samples": 40}]}


@listed("recurrent", "two bidirectional LSTM layers and a GRU, the length fixed")
def recurrent() -> Built:
    import torch

    built = {"args": (torch.randint(0, 199, (2, 9)),), "dynamic": {"tokens": {0: ("batch", 1, 8)}}}
    return {"model": shake(handmade.Recurrent()), **built, "points": [{"batch": 1}, {"batch": 3}]}


@listed("recurrent", "a GRU cell of one step, hidden state in and out")
def recurrent_cell() -> Built:
    import torch

    built = {"args": (torch.randn(2, 16), torch.randn(2, 32)), "dynamic": {"x": {0: ("batch", 1, 8)}, "hidden": {0: "batch"}}}
    return {"model": shake(handmade.RecurrentCell()), **built, "points": [{"batch": 1}, {"batch": 3}]}


@listed("refused", "a detection head that drops overlapping boxes", refused=True)
def detector() -> Built:
    import torch

    return {"model": shake(handmade.Detector()), "args": (torch.randn(1, 3, 64, 64),)}


@listed("refused", "rows picked by their score", refused=True)
def router() -> Built:
    import torch

    return {"model": shake(handmade.Router()), "args": (torch.randn(6, 16),), "dynamic": {"rows": {0: ("rows", 1, 64)}}}


@listed("refused", "a branch on a value", refused=True)
def early_exit() -> Built:
    import torch

    return {"model": shake(handmade.EarlyExit()), "args": (torch.randn(3, 16),), "dynamic": {"x": {0: ("rows", 1, 64)}}}
