"""Models of transformers with random weights, as small as they come, saved with their processors as real ones are."""

from pathlib import Path

import torch
import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bird", "head", "of", "."]


def save_owlv2(folder: Path) -> str:
    """A detector of 32 x 32 pixels and four boxes each way; its tokenizer knows single letters."""
    torch.manual_seed(0)
    letters = [*"abdefhior", *(f"{letter}</w>" for letter in "abdefhior")]
    vocabulary = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    last = len(vocabulary) - 1
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": last - 1,
        "eos_token_id": last,
        "pad_token_id": last,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[], unk_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=16
    )
    images = transformers.Owlv2ImageProcessor(size={"height": 32, "width": 32})
    transformers.Owlv2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


def save_grounding_dino(folder: Path) -> str:
    """A detector with ten queries on a backbone of one convolution a stage."""
    torch.manual_seed(0)
    backbone = transformers.SwinConfig(
        window_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], image_size=32, patch_size=2, out_indices=[1, 2]
    )
    text = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        num_queries=10,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_feature_levels=2,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=16,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    transformers.GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


def save_sam(folder: Path) -> str:
    """A segmenter of 32 x 32 pixels."""
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
            "num_pos_feats": 8,
            "mlp_dim": 16,
            "window_size": 4,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 32, "patch_size": 4, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_dim": 16,
            "iou_head_hidden_dim": 16,
        },
    )
    transformers.SamModel(config).save_pretrained(folder)
    images = transformers.SamImageProcessor(
        size={"longest_edge": 32}, pad_size={"height": 32, "width": 32}, mask_size={"longest_edge": 8}
    )
    transformers.SamProcessor(image_processor=images).save_pretrained(folder)
    return str(folder)


def save_sam2(folder: Path) -> str:
    """A segmenter of 64 x 64 pixels."""
    torch.manual_seed(0)
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(
            hidden_size=8,
            num_attention_heads=1,
            image_size=[64, 64],
            patch_kernel_size=[7, 7],
            patch_stride=[4, 4],
            patch_padding=[3, 3],
            blocks_per_stage=[1, 1, 1, 1],
            embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 2, 4, 8],
            window_size_per_stage=[8, 4, 4, 4],
            window_positional_embedding_background_size=[4, 4],
            global_attention_blocks=[],
        ),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_dim": 16,
            "iou_head_hidden_dim": 16,
        },
    )
    transformers.Sam2Model(config).save_pretrained(folder)
    images = transformers.Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    transformers.Sam2Processor(image_processor=images).save_pretrained(folder)
    return str(folder)
