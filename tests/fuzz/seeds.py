#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets: one folder for each below OUT.

usage: seeds.py ROOT OUT.  They come from the tree and, where HA_TEST_DATA is
set, from the conformance collections and files of Hugging Face.  (Frames and
checkpoints come from the program fuzz-seeds.)
"""
import gzip
import json
import os
import pathlib
import struct
import sys
import tarfile

ROOT, OUT = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
DATA = pathlib.Path(os.environ['HA_TEST_DATA']) if os.environ.get('HA_TEST_DATA') else None
DEMO = ROOT / 'deploy/demo/models'
FAMILIES = ('llama-2-demo', 'llama-3.1-demo', 'qwen2.5-demo', 'qwen3-demo')
MAX_SEED = 1 << 16


def put(target, name, data):
    """A seed; long ones are left out, because every change of them is slow."""
    data = data.encode() if isinstance(data, str) else data
    if len(data) > MAX_SEED:
        return
    (OUT / target).mkdir(parents=True, exist_ok=True)
    (OUT / target / name).write_bytes(data)


def archive(name, under):
    """Files of a conformance collection, as (name, bytes)."""
    if not DATA:
        return
    with tarfile.open(DATA / 'conformance' / name) as tar:
        for member in tar.getmembers():
            if member.isfile() and under in member.name and member.size < 4096:
                yield member.name.replace('/', '-'), tar.extractfile(member).read()


def tensors(entries, metadata=None):
    """A safetensors file of (name, dtype, shape, bytes)."""
    header, at, body = {}, 0, b''
    if metadata:
        header['__metadata__'] = metadata
    for name, dtype, shape, data in entries:
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [at, at + len(data)]}
        at += len(data)
        body += data
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + body


def formats():
    for name, data in archive('JSONTestSuite-test_parsing-test_transform.tar.gz', 'test_'):
        put('json', name, data)
    for name, data in archive('toml-test-tests.tar.gz', 'valid'):
        if name.endswith('.toml'):
            put('toml', name, data)
    put('json', 'all', '{"a": [1, -2.5e3, true, false, null, "\\u00e9\\ud83d\\ude00\\n"], "b": {}, "": 10000000000000000000000}')
    put('toml', 'all', 'a = 1\nb.c = "x"\n"d" = [1.5, {e = true}, 1979-05-27T07:32:00Z]\n[f]\ng = \'\'\'x\'\'\'\n[[h]]\ni = 0xff\n')
    for path in ROOT.glob('deploy/**/*.toml'):
        put('grid', path.parent.name + '-' + path.name, path.read_bytes())
        put('toml', path.parent.name + '-' + path.name, path.read_bytes())
    put('grid', 'wide', '''[sweep]
name = "wide"
seed = 3
[[model]]
name = "a"
path = "org/name"
layers = 12
template = "chat"
[[model]]
name = "b"
path = "models/b"
layers = 7
[strategies]
use = ["base", "local", "mine", "ruled"]
[[strategy]]
name = "mine"
layers = [1, 2]
rank = 4
target_modules = ["q_proj"]
[[strategy]]
name = "ruled"
layers = "auto:3"
[data]
train = ["t.jsonl"]
eval = ["e.jsonl.gz"]
[train]
beta = 0.2
learning_rate = 1e-5
loss = "sigmoid"
[generate]
stop = ["\\n"]
temperature = 0.7
[[judge]]
name = "j"
provider = "generic"
base_url = "http://127.0.0.1:1/v1"
model = "m"
extra = {top_p = 1}
[resources]
gpus = 1
min_gpu_memory = "24GiB"
time_limit = "2h"
[retry]
max_attempts = 3
[schedule]
fuse = "never"
[vary]
learning_rate = [1e-5, 1e-4]
rank = [4, 8]
seed = [1, 2]
exclude = [{learning_rate = 1e-4, strategy = "mine"}]
''')


def settings():
    values = ('0.1', '1e-5', '42', 'true', 'a', 'a,b', '["a", "b"]', '{x = 1}', '10m', '18-27', '0-3,7',
              'auto:8', '24GiB', '[0.1, 0.2]', '')
    for section in range(12):
        for i, value in enumerate(values):
            put('settings', f'{section}-{i}', bytes([section, 3 * i % 20]) + value.encode())
    for which, text in enumerate(('listen = "tcp://127.0.0.1:5555"\ndatabase = "c.db"\nheartbeat_ms = 1000\n',
                                  'coordinator = "ipc://x"\nmodel_roots = ["/m"]\nslots = 2\nlabels = ["a=b"]\n',
                                  'coordinator = "ipc://x"\nconcurrency = 3\n[[key]]\nname = "k"\nenv = "K"\nhosts = ["h"]\n')):
        put('daemon_conf', str(which), bytes([which]) + text.encode())
    key = 'a' * 40
    for i, text in enumerate((f'public {key}\nrole worker\n', f'# x\npublic {key}\nsecret {key}\n', 'tcp://127.0.0.1:5555',
                              'ipc:///tmp/x', 'tcp://*:1', 'tcp://[::1]:80')):
        put('keys', str(i), text)
    source = (ROOT / 'common/net/curve.c').read_text()
    put('keys', 'words', ''.join(line for line in source.splitlines(True) if '"' in line)[:2000])


def weights():
    if DATA:
        for path in DATA.glob('safetensors/*/*.safetensors'):
            put('safetensors', path.parent.name + '-' + path.name, path.read_bytes())
    small = tensors([('a', 'F32', [2], b'\0' * 8), ('b', 'BF16', [2, 1], b'\0' * 4), ('c', 'F64', [], b'\0' * 8)],
                    {'format': 'pt'})
    put('safetensors', 'small', small)
    width, inner, vocab = 4, 4, 8
    linear = {'self_attn.q_proj': (4, 4), 'self_attn.k_proj': (2, 4), 'self_attn.v_proj': (2, 4),
              'self_attn.o_proj': (4, 4), 'mlp.gate_proj': (inner, width), 'mlp.up_proj': (inner, width),
              'mlp.down_proj': (width, inner)}
    entries = [('model.embed_tokens.weight', [vocab, width]), ('model.norm.weight', [width])]
    entries += [(f'model.layers.0.{name}.weight', list(shape)) for name, shape in linear.items()]
    entries += [(f'model.layers.0.{name}.weight', [width])
                for name in ('input_layernorm', 'post_attention_layernorm')]
    for dtype, size in (('F32', 4), ('BF16', 2)):
        put('weights', dtype, tensors([(name, dtype, shape, bytes(size * eval('*'.join(map(str, shape)))))
                                       for name, shape in entries]))
    config = {'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'r': 1, 'lora_alpha': 2, 'lora_dropout': 0.0,
              'bias': 'none', 'target_modules': ['q_proj'], 'layers_to_transform': [0, 1], 'use_rslora': False}
    prefix = 'base_model.model.model.layers.%d.self_attn.q_proj.lora_%s.weight'
    pairs = [(prefix % (layer, side), 'F32', [1, 4] if side == 'A' else [4, 1], bytes(16))
             for layer in (0, 1) for side in 'AB']
    put('adapter', 'small', json.dumps(config).encode() + b'\0' + tensors(pairs))
    for family in FAMILIES:
        path = ROOT / f'tests/golden/{family}/adapter-zero/adapter_config.json'
        put('adapter', family, path.read_bytes() + b'\0' + tensors(pairs))


def models():
    folders = [DEMO / family for family in FAMILIES]
    if DATA:
        folders += sorted((DATA / 'configs').glob('*/'))
    names = ('config.json', 'generation_config.json', 'model.safetensors.index.json')
    for folder in folders:
        parts = [(folder / name).read_bytes() if (folder / name).exists() else b'{}' for name in names]
        if folder.is_dir():
            put('model_config', folder.name, b'\0'.join(parts[:2]))
            put('model_config', folder.name + '-index', b'\0'.join(parts)[:MAX_SEED])


def cut_tokenizer(family):
    """The family's tokenizer with only as many merges as make a small file."""
    tokenizer = json.loads((DEMO / family / 'tokenizer.json').read_text())
    model = tokenizer['model']
    merges = model['merges'][:12]
    made = {merge.replace(' ', '') if isinstance(merge, str) else ''.join(merge) for merge in merges}
    added = {token['content'] for token in tokenizer['added_tokens']}
    model['merges'] = merges
    pieces = [piece for piece in model['vocab']
              if len(piece) == 1 or piece in made or piece in added or piece.startswith('<')]
    model['vocab'] = {piece: i for i, piece in enumerate(pieces)}
    extra = len(pieces)
    ids = {}
    for token in tokenizer['added_tokens']:
        if token['content'] in model['vocab']:
            ids[token['id']] = model['vocab'][token['content']]
        else:
            ids[token['id']] = extra
            extra += 1
        token['id'] = ids[token['id']]
    text = json.dumps(tokenizer)
    for special in (tokenizer['post_processor'] or {}).get('special_tokens', {}).values():
        special['ids'] = [ids.get(i, i) for i in special['ids']]
        text = json.dumps(tokenizer)
    return text


def tokenizers():
    for family in FAMILIES:
        config = json.loads((DEMO / family / 'tokenizer_config.json').read_text())
        config.pop('added_tokens_decoder', None)
        config['chat_template'] = 'x'
        put('tokenizer', family, cut_tokenizer(family) + '\0' + json.dumps(config))
        for which, line in enumerate((ROOT / f'tests/golden/{family}/tokenizer.jsonl').read_text().splitlines()[1:]):
            text = json.loads(line).get('text', '')
            put('encode', f'{family}-{which}', bytes([which % 8]) + text.encode())
    parts = json.loads((ROOT / 'tests/golden/tokenizers/parts.json').read_text())
    for i, case in enumerate(parts['cases']):
        tokenizer = {**parts['base'], **case['changes']}
        put('tokenizer', f'part-{i}', json.dumps(tokenizer) + '\0{}')


def rows():
    dialogue = '\n\nHuman: Hi there\n\nAssistant: Hello!\n\nHuman: And?\n\nAssistant:'
    forms = (
        [{'chosen': dialogue + ' Good', 'rejected': dialogue + ' Bad.'},
         {'chosen': dialogue + ' caf\u00e9', 'rejected': dialogue}],
        [{'prompt': dialogue, 'chosen': ' a', 'rejected': ' b'}, {'prompt': 'What?', 'chosen': 'x', 'rejected': ''}],
        [{'prompt': 'Say it'}, {'prompt': dialogue}],
        [{'chosen': [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}],
          'rejected': [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'b'}]}],
        [{'prompt': [{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'q'}],
          'chosen': [{'role': 'assistant', 'content': 'a'}], 'rejected': [{'role': 'assistant', 'content': 'b'}]}],
        [{'prompt': [{'role': 'user', 'content': 'q'}], 'chat_template_kwargs': {'enable_thinking': False}}],
    )
    for i, form in enumerate(forms):
        text = ''.join(json.dumps(row) + '\n' for row in form).encode()
        for choice in (0, 1, 2, 0x10, 0x11, 0x12, 0x30, 0x20, 0x60, 0x70):
            put('rows', f'{i}-{choice}', bytes([choice]) + text)
        put('rows', f'{i}-gzip', b'\x12' + gzip.compress(text, mtime=0))
    demo = (ROOT / 'deploy/demo/data/train.jsonl').read_text().splitlines(True)
    put('rows', 'demo', b'\x21' + ''.join(demo[:4]).encode())
    for choice in range(18):
        put('chat', f'dialogue-{choice}', bytes([choice % 6 + choice // 6 * 8]) + (dialogue + ' <think>a</think> b').encode())
    for family in FAMILIES:
        template = json.loads((DEMO / family / 'tokenizer_config.json').read_text()).get('chat_template', '')
        if isinstance(template, str):
            put('chat', family, b'\0' + template.encode())


DIMENSIONS = [line.split('"')[1] for line in (ROOT / 'common/conf/dimensions.c').read_text().splitlines()
              if line.strip().startswith('{"')]


def judge():
    entries = [{'dimension': name, 'score': 1 + i % 5, 'reason': 'because'} for i, name in enumerate(DIMENSIONS)]
    array = json.dumps(entries)
    texts = {
        'plain': array, 'fence': f'Sure:\n```json\n{array}\n```\n', 'think': f'<think>[1]</think>{array}',
        'wrapper': json.dumps({'scores': entries}), 'map': json.dumps({e['dimension']: {'score': e['score'], 'reason': 'r'} for e in entries}),
        'numbers': json.dumps({e['dimension']: e['score'] for e in entries}),
        'lines': '\n'.join(json.dumps(e) for e in entries), 'comma': array[:-1] + ',]', 'double': json.dumps(array),
        'cut': array[:-40], 'texts': array.replace('1,', '"1",').replace('2,', '2.0,'), 'twice': array + '\n' + array,
        'bad': array.replace('because', 'a\nb\\u0000\\ud800'),
    }
    for name, text in texts.items():
        put('judge_parse', name, text)
        body = {'id': 'x', 'object': 'chat.completion', 'model': 'model',
                'choices': [{'index': 0, 'finish_reason': 'stop', 'message': {'role': 'assistant', 'content': text}}],
                'usage': {'prompt_tokens': 10, 'completion_tokens': 20}}
        put('judge_reply', name, b'\0\0' + json.dumps(body).encode())
        body['choices'][0]['message'] = {'role': 'assistant', 'content': None, 'reasoning_content': text}
        put('judge_reply', name + '-reasoning', b'\2\0' + json.dumps(body).encode())
    errors = (
        {'error': {'message': 'You exceeded your current quota', 'type': 'insufficient_quota', 'code': 'insufficient_quota'}},
        {'error': 'model is loading'}, {'code': 400, 'message': 'context length', 'object': 'error'},
        {'detail': [{'msg': 'field required'}]}, {'error': {'message': 'Rate limit reached for tokens per min', 'code': 429}},
        {'choices': []}, {'choices': [{'message': {'refusal': 'no'}, 'finish_reason': 'content_filter'}]},
    )
    for i, error in enumerate(errors):
        for status in (0, 5, 13, 14):
            put('judge_reply', f'error-{i}-{status}', bytes([i, status]) + json.dumps(error).encode())
    put('judge_reply', 'html', b'\4\20<!DOCTYPE html><title>502</title>')
    put('judge_reply', 'stream', b'\1\0data: {"choices": []}\n\ndata: [DONE]\n')
    put('judge_reply', 'broken', b'\1\310')
    for i, text in enumerate(('3', '0.5', '1m30s', '500ms', '1h', 'Wed, 21 Oct 2026 07:28:00 GMT',
                              'Wednesday, 21-Oct-26 07:28:00 GMT', 'Wed Oct 21 07:28:00 2026', '2026-10-21T07:28:00Z',
                              'https://host.example:443/v1?a=b#c', 'http://[::1]:80/v1', 'http://127.1.2.3')):
        put('retry_after', str(i), text)


def record(call, raw):
    """A record of the spool."""
    import hashlib
    header = json.dumps({'item': 1, 'generation': 1, 'number': 2, 'call': call, 'reasks': 0, 'max_reasks': 2,
                         'provider': 'openai', 'model': 'm', 'max_tokens': 5, 'identity': 'i', 'flagged': False,
                         'transport': 0, 'error': '', 'http_status': 200, 'host': 'h', 'latency_ms': 1,
                         'estimated_tokens': 1, 'price_input': 0.5, 'price_output': 0}).encode()
    digest = hashlib.sha256(header + raw).hexdigest()
    return header, f'R {digest} {len(header)} {len(raw)}\n'.encode() + header + b'\n' + raw + b'\n'


def programs():
    header, one = record(7, b'{"choices": []}')
    two = record(9, b'')[1]
    put('spool', 'header', header)
    put('spool', 'one', one)
    put('spool', 'dropped', one + two + b'D 7\n')
    put('spool', 'cut', one + two[:-10])
    lines = (
        {'type': 'phase', 'phase': 'step'}, {'type': 'progress', 'step': 3, 'steps': 10, 'tokens_per_second': 1.5},
        {'type': 'metric', 'cell': 1, 'step': 5, 'values': {'loss': 0.5, 'rewards/margins': None}},
        {'type': 'answer', 'cell': 1, 'prompt': 2, 'sample': 0, 'prompt_text': 'p', 'text': 't', 'raw': 'r',
         'finish': 'stop', 'prompt_tokens': 3, 'tokens': 4},
        {'type': 'probe', 'cell': 1, 'block': '', 'layer': 0, 'layers': 4, 'module': 'q_proj', 'norm': 0.5,
         'parameters': 100, 'pairs': 8},
        {'type': 'artifact', 'cell': 1, 'kind': 'checkpoint', 'name': 'checkpoint', 'path': 'out/c', 'step': 7},
        {'type': 'cell', 'cell': 1, 'done': True, 'reason': '', 'permanent': False, 'summary': {'seconds': 1}},
        {'type': 'error', 'text': 'why'}, {'type': 'newer'},
    )
    for i, line in enumerate(lines):
        put('contract', str(i), json.dumps(line))
    spec = {'kind': 'train', 'sweep': 's', 'job': 12,
            'model': {'name': 'm', 'path': '/models/m', 'hub_id': '', 'template': 'hh'},
            'data': {'train': ['inputs/a'], 'eval': ['inputs/c']},
            'settings': {'train': {'beta': 0.5}, 'generate': {'temperature': 0.5}, 'data': {'seed': 3}},
            'threads': 2, 'backend': 'cpu', 'digests': None, 'reference': 'inputs/reference',
            'cells': [{'id': 11, 'name': 'm/mid', 'layers': [2, 3], 'settings': {'train': {'beta': 0.25}},
                       'checkpoint': 'inputs/checkpoint', 'adapter': None}],
            'skip_answers': {'11': [[0, 0], [5, 1]]}}
    put('job_spec', 'train', json.dumps(spec))
    spec.update(kind='generate', cells=[{'id': 11, 'name': 'm/base', 'layers': [], 'adapter': 'inputs/adapter/11'}])
    put('job_spec', 'generate', json.dumps(spec))
    spec.update(kind='probe', skip_answers={})
    put('job_spec', 'probe', json.dumps(spec))


for make in (formats, settings, weights, models, tokenizers, rows, judge, programs):
    make()
