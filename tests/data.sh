# Sourced by ./test: installs what only tests need and fetches their data into the cache. Real vocabularies with test
# vectors and real chat templates come from a PyPI source package; the Python packages that goldens are checked against,
# and the real clients, live in one virtual environment.

test_packages="curl openssl g++ clang libclang-rt-14-dev python3 python3-pip python3-venv ca-certificates git etcd-server"
sdist=llama-cpp-python==0.3.36

# Python packages, pinned: goldens are compared with these versions.
venv_packages="openai==3.54.0 tokenizers==0.23.3 jinja2==3.1.6 numpy==2.4.6 gguf==0.19.0 prometheus-client==0.26.0"

venv_python() { echo "$cache/venv/bin/python"; }

no_pypi() { # no_pypi PACKAGES
    tail -n 15 "$work/pip"
    echo "test: could not install from PyPI what the tests need: $1" >&2
    exit 1
}

fetch_venv() {
    stamp=$cache/venv/stamp
    [ "$(cat "$stamp" 2>/dev/null)" = "$venv_packages" ] && return 0
    echo "test: making the Python environment for goldens and clients"
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv"
    # shellcheck disable=SC2086
    "$cache/venv/bin/pip" install -q --disable-pip-version-check $venv_packages >"$work/pip" 2>&1 ||
        no_pypi "$venv_packages"
    printf '%s' "$venv_packages" >"$stamp"
}

fetch_corpus() { # vocabularies and templates: $cache/corpus/models
    [ -f "$cache/corpus/stamp" ] && return 0
    echo "test: fetching real vocabularies and chat templates from PyPI: $sdist"
    mkdir -p "$cache/corpus"
    "$(venv_python)" -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
        -d "$work" "$sdist" >"$work/pip" 2>&1 || no_pypi "$sdist"
    tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$cache/corpus" --strip-components=3 --wildcards '*/vendor/llama.cpp/models/*'
    touch "$cache/corpus/stamp"
}

render_templates() { # what Jinja2 makes of the real templates; a change of the script makes it anew
    out=$cache/chat_corpus.json
    [ -f "$out" ] && [ -z "$(find tests/golden/chat -name '*.py' -newer "$out")" ] && return 0
    echo "test: rendering the real chat templates with Jinja2"
    "$(venv_python)" tests/golden/chat/make_goldens.py --templates "$cache/corpus/models/templates" --out "$out.part" \
        >"$work/goldens" 2>&1 || { tail -n 15 "$work/goldens"; return 1; }
    mv "$out.part" "$out"
}

fetch_data() {
    # shellcheck disable=SC2086
    ./run --install $test_packages
    fetch_venv
    fetch_corpus
    render_templates
}
