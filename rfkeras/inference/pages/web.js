// The page that tags: takes files, decodes them, lets the worker tag them, and shows the pages of
// songs and their index in a frame. These are the pages of `rfkeras tag --html`, filled here.
"use strict";

(() => {
  const UNKNOWN_RATE_HZ = 48000; // for formats whose header is not read; the browser resamples
  const RATES_HZ = [8000, 96000]; // every browser decodes at these
  const MOST_SAMPLE = 2 ** 32; // as in rfkeras.audio.io
  const VIEW = "#view="; // links of this page; other fragments are inside of the pages

  const get = (id) => document.getElementById(id);
  const model = rfkerasModel;
  const sound = rfkerasSound();
  const jobs = []; // of each file: { file, name, state, share, result, error, and its elements }
  let worker = null;
  let opening = null; // the promise that the worker has loaded the model
  let pending = null; // of the worker: { resolve, reject, onProgress }
  let isWorking = false;
  let batch = 0; // number of the first job of those that were added last

  const isOpen = (job) => ["waiting", "decoding", "tagging"].includes(job.state);
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // The worker

  function stopWorker(reason) {
    if (worker) worker.terminate();
    worker = opening = null;
    if (pending) pending.reject(reason);
    pending = null;
  }

  function ask(message, transfer = [], onProgress = () => {}) {
    return new Promise((resolve, reject) => {
      pending = { resolve, reject, onProgress };
      worker.postMessage(message, transfer);
    });
  }

  function listenToWorker({ data }) {
    if (!pending) return;
    if (data.done !== undefined) {
      pending.onProgress(data.done);
      return;
    }
    const { resolve, reject } = pending;
    pending = null;
    if (data.error !== undefined) reject(new Error(data.error));
    else resolve(data.result);
  }

  // From text, because a page that was opened as a file cannot start a worker from another file.
  function openWorker() {
    const parts = [rfkerasTags, `(${rfkerasWorker})((${rfkerasSound})());`];
    const url = URL.createObjectURL(new Blob(['"use strict";\n', parts.join("\n")]));
    worker = new Worker(url);
    worker.onmessage = listenToWorker;
    worker.onerror = (event) => stopWorker(new Error(event.message || "the worker failed"));
    const { engine, ...settings } = model;
    opening = ask({ open: { runtime: rfkerasRuntime, engine, settings } });
    opening.catch(stopWorker); // a later file tries again
  }

  // Decoding

  function audioContext(rateHz) {
    try {
      return new OfflineAudioContext(1, 1, rateHz);
    } catch {
      const [low, high] = RATES_HZ;
      return new OfflineAudioContext(1, 1, Math.min(Math.max(rateHz, low), high));
    }
  }

  // The channels of the model: the mean of all channels, or two of two.
  function mixed(audio) {
    const n = audio.numberOfChannels;
    const channels = Array.from({ length: n }, (_, channel) => audio.getChannelData(channel));
    for (const samples of channels) {
      for (const sample of samples) {
        if (Math.abs(sample) <= MOST_SAMPLE) continue; // false for NaN
        throw new Error(
          Number.isFinite(sample)
            ? `samples of up to ${Math.abs(sample).toExponential(1)} are too large to be audio`
            : "NaN or infinite samples",
        );
      }
    }
    if (model.channels === 2 && n === 2) return channels.map((samples) => samples.slice());
    const mono = channels[0].slice();
    for (const samples of channels.slice(1)) samples.forEach((sample, i) => (mono[i] += sample));
    if (n > 1) mono.forEach((sample, i) => (mono[i] = sample / n));
    return model.channels === 1 ? [mono] : [mono, mono.slice()];
  }

  async function decode(file) {
    let content;
    try {
      content = await file.arrayBuffer();
    } catch {
      throw new Error("it cannot be read: it is a folder, was moved, or is too large");
    }
    if (content.byteLength === 0) throw new Error("empty file (0 bytes)");
    const rateHz = sound.headerRateHz(new Uint8Array(content)) ?? UNKNOWN_RATE_HZ;
    let audio;
    try {
      audio = await audioContext(rateHz).decodeAudioData(content);
    } catch {
      throw new Error("this browser cannot decode it: it is damaged, or in an unknown format");
    }
    return { channels: mixed(audio), rateHz: audio.sampleRate };
  }

  // Jobs

  function showJob(job) {
    const { state, item, text, bar, link } = job;
    const share = Math.round(100 * job.share);
    bar.hidden = !["decoding", "tagging"].includes(state);
    if (state === "tagging") bar.value = job.share;
    else bar.removeAttribute("value");
    if (state === "done") {
      const best = job.result.row.applies.toSorted(
        (a, b) => job.result.row.scores[b] - job.result.row.scores[a],
      );
      text.textContent = best.map((tag) => model.labels[tag]).join(", ") || "no tag applies";
      link.href = `${VIEW}${jobs.indexOf(job)}`;
    } else if (state === "failed") {
      text.textContent = job.error;
      text.setAttribute("role", "alert");
    } else {
      text.textContent = state === "tagging" ? `${state}, ${share} %` : state;
    }
    item.className = state;
  }

  function showStatus() {
    const open = jobs.filter(isOpen).length;
    const done = jobs.filter((job) => job.state === "done").length;
    const failed = jobs.filter((job) => job.state === "failed").length;
    const parts = [`${done} of ${count(jobs.length, "file")} tagged`];
    if (failed) parts.push(`${failed} could not be used`);
    get("status").textContent = parts.join(", ");
    get("bar-status").textContent = open ? parts.join(", ") : "";
    get("jobs-section").hidden = jobs.length === 0;
    get("cancel").hidden = open === 0;
    get("all").hidden = done === 0;
  }

  function setState(job, state, more = {}) {
    Object.assign(job, { state, ...more });
    showJob(job);
    showStatus();
  }

  async function tag(job) {
    setState(job, "decoding");
    try {
      if (!worker) openWorker();
      await opening;
      const { channels, rateHz } = await decode(job.file);
      if (job.state === "cancelled") return;
      setState(job, "tagging");
      const buffers = channels.map((samples) => samples.buffer);
      const result = await ask({ channels, rateHz }, buffers, (share) => {
        job.share = share;
        showJob(job);
      });
      setState(job, "done", { result, url: URL.createObjectURL(job.file) });
    } catch (error) {
      if (job.state === "tagging") stopWorker(); // it may be out of memory
      if (job.state !== "cancelled") setState(job, "failed", { error: error.message });
    }
  }

  async function work() {
    if (isWorking) return;
    isWorking = true;
    for (let job; (job = jobs.find(({ state }) => state === "waiting")); ) await tag(job);
    isWorking = false;
    const done = jobs.slice(batch).filter(({ state }) => state === "done");
    if (location.hash.startsWith(VIEW) || done.length === 0) return;
    const isOne = jobs.length - batch === 1;
    location.hash = `${VIEW}${isOne ? jobs.indexOf(done[0]) : "songs"}`;
  }

  function add(files) {
    if (!isWorking) batch = jobs.length;
    for (const file of files) {
      const name = file.webkitRelativePath || file.name;
      const link = element("a", {}, element("bdi", { textContent: name }));
      const text = element("span", { className: "about" });
      const bar = element("progress", { max: 1 });
      bar.setAttribute("aria-label", `Progress of ${name}`);
      const item = element("li", {}, link, bar, text);
      get("jobs").append(item);
      const job = { file, name, share: 0, item, link, bar, text };
      jobs.push(job);
      setState(job, "waiting");
    }
    work();
  }

  function cancel() {
    for (const job of jobs.filter(isOpen)) setState(job, "cancelled");
    stopWorker(new Error("cancelled"));
    get("heading").focus();
  }

  // Pages

  const escaped = (text) =>
    text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

  // JSON that cannot end the script element that it is in.
  const embedded = (data) =>
    JSON.stringify(data).replace(
      /[<>&]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );

  const filled = (template, parts) => template.replace(/\$(\w+)/g, (_, name) => parts[name]);

  // The image as PNG in base64.
  function png({ width, height, image }) {
    const canvas = element("canvas", { width, height });
    const pixels = new ImageData(width, height);
    image.forEach((grey, i) => pixels.data.set([grey, grey, grey, 255], 4 * i));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
  }

  function songPage({ name, url, result }) {
    const { data, image } = result;
    const columnS = data.stride_s * data.frames_per_column;
    return filled(model.templates.song, {
      title: escaped(name.split("/").pop()),
      about: escaped(model.about),
      notes: "",
      player: filled(model.templates.player, { audio: url }),
      index: `${VIEW}songs`,
      whole_seconds: String(Math.floor(data.seconds)),
      resolution: `One column is ${Number(columnS.toPrecision(2))} s.`,
      picture: png(image),
      data: embedded(data),
    });
  }

  function indexPage() {
    const songs = jobs.flatMap(({ name, state, error, result }, number) => {
      if (state === "done") return [{ name, page: `${VIEW}${number}`, ...result.row }];
      return state === "failed" ? [{ name, error }] : [];
    });
    const failed = songs.filter(({ error }) => error !== undefined).length;
    const about = [count(songs.length - failed, "song"), model.about];
    if (failed) about.splice(1, 0, `${count(failed, "file")} that could not be used`);
    const { labels, page } = model;
    const rounded = (value) => Number(value.toFixed(page.score_digits));
    const thresholds = model.thresholds && model.thresholds.map(rounded);
    return filled(model.templates.index, {
      about: escaped(about.join(", ")),
      data: embedded({ labels, thresholds, songs }),
    });
  }

  function listenToFrame(frame) {
    const inside = frame.contentDocument;
    frame.title = inside.title;
    document.title = inside.title;
    inside.addEventListener("click", (event) => {
      const link = event.target.closest(`a[href^="${VIEW}"]`);
      if (!link) return;
      event.preventDefault();
      location.hash = link.getAttribute("href");
    });
    inside.addEventListener("themechange", () => {
      const { theme } = inside.documentElement.dataset;
      document.documentElement.dataset.theme = theme;
      get("theme").setAttribute("aria-pressed", String(theme === "dark"));
    });
    listenToDrops(inside);
    frame.contentWindow.focus();
  }

  function route() {
    const view = location.hash.startsWith(VIEW) ? location.hash.slice(VIEW.length) : null;
    const job = jobs[Number(view)];
    let page = null;
    if (view === "songs" && jobs.some(({ state }) => state === "done")) page = indexPage();
    else if (view !== null && job && job.state === "done") page = songPage(job);
    document.querySelector("iframe")?.remove(); // a new one adds nothing to the history
    document.body.classList.toggle("viewing", page !== null);
    get("start").hidden = page !== null;
    get("bar").hidden = page === null;
    if (page === null) {
      document.title = "Tag music";
      get("heading").focus();
      return;
    }
    const frame = element("iframe", { srcdoc: page, title: "Page" });
    frame.addEventListener("load", () => listenToFrame(frame));
    document.body.append(frame);
  }

  // Controls

  function listenToDrops(target) {
    target.addEventListener("dragover", (event) => {
      event.preventDefault();
      get("drop").classList.add("over");
    });
    target.addEventListener("dragleave", () => get("drop").classList.remove("over"));
    target.addEventListener("drop", (event) => {
      event.preventDefault();
      get("drop").classList.remove("over");
      if (event.dataTransfer.files.length === 0) return;
      location.hash = "";
      add(event.dataTransfer.files);
    });
  }

  openWorker(); // before there are files, because it takes seconds
  get("all").href = `${VIEW}songs`;
  listenToDrops(document);
  get("files").addEventListener("change", ({ target }) => {
    add([...target.files]);
    target.value = ""; // so that the same file can be chosen again
  });
  get("cancel").addEventListener("click", cancel);
  window.addEventListener("hashchange", route);
  if (location.hash.startsWith(VIEW)) history.replaceState(null, "", location.pathname);
})();
