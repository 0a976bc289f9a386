"""A small honest server on loopback: vLLM, SGLang or OpenAI's API, over a policy that is known exactly.

The policy is that of the engine `synthetic`, as a function of all tokens before: a server does not know where a
prompt ended.

Shapes: T tokens whose distributions are asked for, V vocabulary.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np

from mismatchscope.engines.synthetic.policy import (
    END_OF_SEQUENCE,
    States,
    SyntheticOptions,
    raw_logprobs,
    sampled_logprobs,
)
from mismatchscope.records import Sampling

Kind = Literal["vllm", "sglang", "openai"]

POLICY = SyntheticOptions(vocabulary=48, sharpness=1.0, mean_length=8)


def distributions(kind: Kind, stage: str, tokens: list[int], start: int, sampling: Sampling) -> np.ndarray:
    """Log-probs [T, V] of each token from `start` on, at a stage of the way from the logits to the draw."""
    states = States.of_prompts(POLICY, [np.array(tokens[:end]) for end in range(start, len(tokens))])
    if stage == "processed" and kind == "sglang" and sampling.top_k and sampling.temperature:
        # Top-p counts the mass of all ids; what it and top-k both leave is renormalised.
        logp_TV = sampled_logprobs(POLICY, states, replace(sampling, top_k=0))
        kth_T1 = -np.sort(-logp_TV, axis=1)[:, sampling.top_k - 1 :][:, :1]
        logp_TV = np.where(logp_TV >= kth_T1, logp_TV, -np.inf)
        return logp_TV - np.log(np.exp(logp_TV).sum(axis=1, keepdims=True))
    if stage == "processed":
        return sampled_logprobs(POLICY, states, sampling)
    return raw_logprobs(POLICY, states, (sampling.temperature or 1.0) if stage == "tempered" else 1.0)


def draw(kind: Kind, prompt: list[int], sampling: Sampling, limit: int, seed: int) -> tuple[list[int], str]:
    """A response, and why it ended."""
    rng, tokens = np.random.default_rng(seed), list(prompt)
    for _ in range(limit):
        p_V = np.exp(distributions(kind, "processed", [*tokens, 0], len(tokens), sampling)[0])
        tokens.append(int(rng.choice(len(p_V), p=p_V / p_V.sum())))
        if tokens[-1] == END_OF_SEQUENCE:
            return tokens[len(prompt) :], "stop"
    return tokens[len(prompt) :], "length"


class RefusedError(Exception):
    """What a server answers with status 400."""


@dataclass
class FakeServer:
    """`stage` is what sampled log-probs are, `cap` how many it lists; `received` the bodies of all requests."""

    kind: Kind
    stage: str = "raw"
    cap: int = POLICY.vocabulary
    names: list[str] = field(default_factory=lambda: ["served"])
    root: str | None = "/models/served"
    max_model_len: int = 40
    text_only: bool = False
    seconds: float = 0.0
    tokenized: list[int] | None = None
    received: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    tls: ssl.SSLContext | None = None
    busy: bool = False  # and so cannot reset its cache

    def __enter__(self) -> FakeServer:
        handler = type("Handler", (self.handler,), {"fake": self})
        self._at_once, self._lock = 0, threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        if self.tls is not None:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._http.server_address[1]}"

    @property
    def generations(self) -> list[dict[str, Any]]:
        """The requests that a model had to be run for."""
        return [body for body in self.received if "prompt" in body or "input_ids" in body]

    def respond(self, path: str, body: dict[str, Any] | None) -> Any:
        match path:
            case "/v1/models":
                cards = [
                    {"id": name, "root": self.root, "max_model_len": self.max_model_len} for name in self.names
                ]
                return {"data": cards}
            case "/version" if self.kind == "vllm":
                return {"version": "0.32.0"}
            case "/model_info" if self.kind == "sglang":
                return {"model_path": self.root, "weight_version": "default"}
            case "/server_info" if self.kind == "sglang":
                return {"version": "0.5.23", "dtype": "float32", "api_key": "never to be written"}
            case "/reset_prefix_cache" if self.kind == "vllm":
                return {"success": not self.busy}
            case "/flush_cache" if self.kind == "sglang":
                return "Cache flushed."
            case "/tokenize" if self.tokenized is not None:
                return {"tokens": self.tokenized}
            case "/v1/completions" if self.kind != "sglang":
                return self._generate(self._complete, body)
            case "/generate" if self.kind == "sglang":
                return self._generate(self._sglang, body)
        return None

    def _generate(self, function: Any, body: dict[str, Any]) -> Any:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.seconds)
            return function(body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, sampling = body["prompt"], _sampling(body)
        listed = body.get("prompt_logprobs") or 0
        listed = POLICY.vocabulary if listed == -1 else listed
        for kind, wanted in (("prompt", listed), ("sample", body.get("logprobs") or 0)):
            if wanted > self.cap:
                raise RefusedError(
                    f"Requested {kind} logprobs of {wanted}, which is greater than max allowed: {self.cap}"
                )
        response, reason = draw(self.kind, prompt, sampling, body["max_tokens"], body.get("seed", 0))
        choice: dict[str, Any] = {"index": 0, "text": "…", "finish_reason": reason}
        if not self.text_only and body.get("return_token_ids"):
            choice |= {"token_ids": response, "prompt_token_ids": prompt}
        if body.get("logprobs") is not None:
            tokens = [*prompt, *response]
            logp_TV = distributions(self.kind, self.stage, tokens, len(prompt), sampling)
            if body.get("echo"):
                logp_TV = np.concatenate(
                    [distributions(self.kind, "raw", tokens[: len(prompt)], 1, sampling), logp_TV]
                )
            else:
                tokens = response
            choice["logprobs"] = self._openai_logprobs(logp_TV, tokens, body["logprobs"])
        if body.get("prompt_logprobs") is not None and self.kind == "vllm":
            logp_TV = distributions(self.kind, "raw", prompt, 1, sampling)
            rows = [
                {str(i): {"logprob": float(row_V[i]), "rank": 1} for i in {token, *_best(row_V, listed)}}
                for row_V, token in zip(logp_TV, prompt[1:], strict=True)
            ]
            choice["prompt_logprobs"] = [None, *rows]
        # vLLM answers with its first name, whichever was asked for.
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(response)}
        usage["total_tokens"] = sum(usage.values())
        name = self.names[0] if self.kind == "vllm" else body["model"]
        return {"model": name, "choices": [choice]} | ({"usage": usage} if self.kind == "vllm" else {})

    def _openai_logprobs(self, logp_TV: np.ndarray, tokens: list[int], k: int) -> dict[str, Any]:
        def name(token: int) -> str:
            return f"word{token}" if self.text_only else f"token_id:{token}"

        missing = [None] * (len(tokens) - len(logp_TV))  # the first token of an echo has no log-prob
        scored = tokens[len(missing) :]
        pairs = list(zip(logp_TV.clip(-9999.0), scored, strict=True))  # as vLLM writes -inf
        return {
            "tokens": [name(token) for token in tokens],
            "token_logprobs": missing + [float(row_V[token]) for row_V, token in pairs],
            "top_logprobs": missing
            + [{name(i): float(row_V[i]) for i in {token, *_best(row_V, k)}} for row_V, token in pairs],
        }

    def _sglang(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, parameters = body["input_ids"], body["sampling_params"]
        outside = [key for key in parameters.get("logit_bias", {}) if int(key) >= POLICY.vocabulary]
        if outside:
            raise RefusedError(f"logit_bias must has keys in [0, {POLICY.vocabulary - 1}], got {outside[0]}.")
        sampling, limit = _sampling(parameters), parameters["max_new_tokens"]
        response, reason = draw(self.kind, prompt, sampling, limit, parameters.get("sampling_seed", 0))
        tokens, k = [*prompt, *response], body["top_logprobs_num"]
        meta: dict[str, Any] = {"finish_reason": {"type": reason}, "weight_version": "default"}
        logp_TV = distributions(self.kind, self.stage, tokens, len(prompt), sampling).clip(np.finfo(np.float32).min)
        meta["output_token_logprobs"] = [
            [float(row_V[i]), i, None] for row_V, i in zip(logp_TV, response, strict=True)
        ]
        meta |= _listed("output", logp_TV, k, null_prefix=0)
        if "logprob_start_len" in body:
            start = body["logprob_start_len"]
            logp_TV = distributions(self.kind, "raw", prompt, start + 1, sampling)
            scored = list(zip(logp_TV, prompt[start + 1 :], strict=True))
            meta["input_token_logprobs"] = [
                [None, prompt[start], None],
                *([float(row_V[i]), i, None] for row_V, i in scored),
            ]
            meta |= _listed("input", logp_TV, k, null_prefix=1)
            ids = body.get("token_ids_logprob", [])
            meta["input_token_ids_logprobs"] = [
                None,
                *([[float(row_V[i]), i, None] for i in ids] for row_V in logp_TV),
            ]
        if body.get("return_sampling_mask"):
            logp_TV = distributions(self.kind, "processed", tokens, len(prompt), sampling)
            support = [np.flatnonzero(np.isfinite(row_V)) for row_V in logp_TV]
            meta["output_token_sampling_mask"] = [ids.tolist() for ids in support]
            meta["output_token_sampling_logprobs"] = [
                row_V[ids].tolist() for row_V, ids in zip(logp_TV, support, strict=True)
            ]
        meta |= {"prompt_tokens": len(prompt), "completion_tokens": len(response)}
        return {"text": "…", "output_ids": response, "meta_info": meta}

    class handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits for an acknowledgement between head and body
        fake: FakeServer

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            self.fake.received.append(body)
            self.reply(body)

        def reply(self, body: dict[str, Any] | None) -> None:
            self.fake.authorizations.append(self.headers.get("Authorization"))
            try:
                response = self.fake.respond(self.path, body)
            except RefusedError as error:
                self.send(400, json.dumps({"error": {"message": str(error)}}).encode())
                return
            if response is None:
                self.send(404, b'{"detail": "Not Found"}')
            else:
                self.send(200, json.dumps(response).encode())

        def send(self, status: int, data: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return None


def _sampling(fields: dict[str, Any]) -> Sampling:
    return Sampling(
        temperature=fields.get("temperature", 1.0),
        top_p=fields.get("top_p", 1.0),
        top_k=max(fields.get("top_k", 0), 0),
    )


def _best(logp_V: np.ndarray, k: int) -> list[int]:
    return np.argsort(-logp_V, kind="stable")[:k].tolist()


def _listed(side: str, logp_TV: np.ndarray, k: int, null_prefix: int) -> dict[str, Any]:
    """SGLang's compact form of the k most probable ids."""
    ids_TK = np.argsort(-logp_TV, axis=1, kind="stable")[:, :k].astype("<i4")
    values_TK = np.take_along_axis(logp_TV, ids_TK, axis=1).astype("<f4")
    return {
        f"{side}_top_logprobs_idx_flat_b64": base64.b64encode(ids_TK.tobytes()).decode(),
        f"{side}_top_logprobs_val_flat_b64": base64.b64encode(values_TK.tobytes()).decode(),
        f"{side}_top_logprobs_shape": list(ids_TK.shape),
        f"{side}_top_logprobs_null_prefix": null_prefix,
    }
