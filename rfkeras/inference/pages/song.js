// The page of a song: player, spectrogram, tags over time, and the segments of each tag.
"use strict";

(() => {
  const STEP_S = 5;
  const PAGE_S = 30;
  const MOST_ZOOM = 64;
  const MOST_SHOWN = 24; // rows of the map at the start
  const SHORT_LIST = 12; // segments of a tag before "and 30 more"
  const CLOSED_GAP_S = 2; // a frame that is missing does not matter to the reader
  const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400];

  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);
  const { tags, seconds, columns } = data;
  const values = Uint8Array.from(atob(data.frames), (c) => c.charCodeAt(0)); // (tags, columns)
  const audio = get("audio"); // null if the page has no sound
  const timeline = get("timeline");
  const scroller = get("scroller");
  const rows = []; // of the map, by tag
  const cells = []; // of the table, by tag
  let segments = []; // [start, end] in seconds, by tag
  let threshold = null; // one for all tags; null for those of the model
  let position = 0;
  let waiting = null; // where to go as soon as the sound is there
  let zoom = 1;
  const opened = new Set(); // tags with all of their segments in the table
  let colours = {};

  function clock(time) {
    const whole = Math.floor(time);
    const two = (number) => String(number).padStart(2, "0");
    const minutes = Math.floor(whole / 60);
    return minutes < 60
      ? `${minutes}:${two(whole % 60)}`
      : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
  }

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  // Scores and segments

  function edge(column) {
    const frame = Math.min(column * data.frames_per_column, data.n_frames);
    return Math.min(Math.max(data.start_s + frame * data.stride_s, 0), seconds);
  }

  const edges = Array.from({ length: columns + 1 }, (_, column) => edge(column));

  // Scores are whole numbers to 255 that keep their side of the model's threshold.
  const lowest = (tag) => Math.ceil((threshold ?? tags[tag].threshold ?? 0) * 255 - 1e-6);

  const highest = new Uint8Array(columns); // over the tags, if only one of them can apply
  if (data.exclusive) {
    values.forEach((value, at) => {
      highest[at % columns] = Math.max(highest[at % columns], value);
    });
  }

  function applies(tag, column) {
    const value = values[tag * columns + column];
    return value >= lowest(tag) && value >= highest[column];
  }

  function segmentsOf(tag) {
    const found = [];
    for (let column = 0; column < columns; column += 1) {
      if (edges[column + 1] <= edges[column] || !applies(tag, column)) continue;
      const last = found.at(-1);
      if (last && last[1] === edges[column]) last[1] = edges[column + 1];
      else found.push([edges[column], edges[column + 1]]);
    }
    return found;
  }

  // The segments in the table.
  function listed(tag) {
    if (!get("join").checked) return segments[tag];
    const joined = [];
    for (const [start, end] of segments[tag]) {
      const last = joined.at(-1);
      if (last && start - last[1] <= CLOSED_GAP_S) last[1] = end;
      else joined.push([start, end]);
    }
    return joined;
  }

  const isAt = (tag, time) => segments[tag].some(([start, end]) => start <= time && time < end);

  // The map

  function addRows() {
    tags.forEach((tag, index) => {
      const canvas = element("canvas");
      const name = element("span", { className: "name", textContent: tag.name, title: tag.name });
      const row = element("div", { className: "row tag", hidden: true });
      row.append(name, element("div", { className: "lane" }, canvas));
      get("rows").append(row);
      rows[index] = { row, canvas };
    });
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const rgb = (name) => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
    colours = { score: rgb("--score"), applies: rgb("--applies") };
  }

  function drawRow(tag) {
    const { row, canvas } = rows[tag];
    if (row.hidden) return;
    const wide = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
    const width = Math.max(1, Math.min(wide, columns));
    const height = 5;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const columnSeconds = data.stride_s * data.frames_per_column;
    const columnAt = (pixel) => ((pixel / width) * seconds - data.start_s) / columnSeconds;
    for (let x = 0; x < width; x += 1) {
      // The highest of the columns in a pixel, so that short events stay visible.
      const first = Math.max(0, Math.floor(columnAt(x) + 1e-6));
      const stop = Math.min(columns, Math.ceil(columnAt(x + 1) - 1e-6));
      let score = 0;
      let applying = false;
      for (let column = first; column < stop; column += 1) {
        score = Math.max(score, values[tag * columns + column]);
        applying = applying || applies(tag, column);
      }
      for (let y = 0; y < height; y += 1) {
        const strip = applying && y === height - 1;
        const [red, green, blue] = strip ? colours.applies : colours.score;
        image.data.set([red, green, blue, strip ? 255 : score], 4 * (y * width + x));
      }
    }
    context.putImageData(image, 0, 0);
  }

  const draw = () => tags.forEach((_, tag) => drawRow(tag));

  function drawAxis() {
    const axis = get("axis");
    const most = Math.max(1, Math.floor(axis.clientWidth / 64));
    const step = TICKS_S.find((each) => seconds / each <= most) ?? 4 * 3600;
    axis.replaceChildren();
    for (let time = 0; time < seconds; time += step) {
      const tick = element("span", { textContent: clock(time) });
      tick.style.left = `${(100 * time) / seconds}%`;
      // A label at the end would be cut.
      if ((1 - time / seconds) * axis.clientWidth > 48 || time === 0) axis.append(tick);
    }
  }

  function placeSpectrogram() {
    const { start_s: start, stop_s: stop, ticks } = data.picture;
    for (const [place, text] of ticks) {
      const tick = element("span", { className: "hz", textContent: text });
      tick.style.bottom = `${100 * place}%`;
      get("hz").append(tick);
    }
    const image = get("spectrogram");
    image.style.left = `${(100 * start) / seconds}%`;
    image.style.width = `${(100 * (stop - start)) / seconds}%`;
  }

  function setZoom(factor) {
    zoom = Math.min(MOST_ZOOM, Math.max(1, factor));
    timeline.style.width = `calc(var(--names) + (100% - var(--names)) * ${zoom})`;
    get("zoom").textContent = `${zoom}\u00d7`;
    get("zoom-out").disabled = zoom === 1;
    get("zoom-in").disabled = zoom === MOST_ZOOM;
    redraw();
    showCursor(true);
  }

  function redraw() {
    drawAxis();
    draw();
  }

  const lane = () => get("axis").getBoundingClientRect();

  function showCursor(centre = false) {
    get("cursor").style.left = `${(100 * position) / seconds}%`;
    if (zoom === 1) return;
    const names = timeline.querySelector(".name").offsetWidth;
    const visible = scroller.clientWidth - names;
    const x = (position / seconds) * lane().width;
    const isVisible = x >= scroller.scrollLeft && x <= scroller.scrollLeft + visible;
    if (centre) scroller.scrollLeft = x - visible / 2;
    else if (!isVisible) scroller.scrollLeft = x - visible / 10;
  }

  // Position

  function update(time) {
    position = Math.min(Math.max(time, 0), seconds);
    showCursor();
    get("time").textContent = `${clock(position)} / ${clock(Math.ceil(seconds))}`;
    timeline.setAttribute("aria-valuenow", String(Math.floor(position)));
    timeline.setAttribute("aria-valuetext", clock(position));
    const now = [];
    tags.forEach((tag, index) => {
      const on = isAt(index, position);
      rows[index].row.classList.toggle("on", on);
      if (on) now.push(tag.name);
    });
    get("now").textContent = now.join(", ");
  }

  function seek(time) {
    const target = Math.min(Math.max(time, 0), seconds);
    if (audio && audio.readyState > 0) audio.currentTime = target;
    else waiting = target;
    update(target);
  }

  function follow() {
    if (audio.seeking) return;
    update(audio.currentTime);
  }

  function frame() {
    follow();
    if (!audio.paused && !audio.ended) requestAnimationFrame(frame);
  }

  function togglePlay() {
    if (!audio) return;
    if (audio.paused) audio.play().catch(() => {}); // an error event follows
    else audio.pause();
  }

  function listenToAudio() {
    if (!audio) return;
    audio.addEventListener("loadedmetadata", () => {
      if (waiting !== null) audio.currentTime = waiting;
      waiting = null;
    });
    audio.addEventListener("play", () => requestAnimationFrame(frame));
    for (const name of ["timeupdate", "seeked", "pause"]) audio.addEventListener(name, follow);
    const failed = () => {
      get("trouble").textContent =
        "The sound cannot be played: the file was moved, or this browser cannot decode its " +
        "format. Map and segments still work.";
      get("trouble").hidden = false;
    };
    audio.addEventListener("error", failed);
    if (audio.error) failed();
  }

  // The table

  function segmentButton(tag, [start, end]) {
    const button = element("button", {
      type: "button",
      textContent: `${clock(start)}\u2013${clock(Math.ceil(end))}`,
    });
    button.setAttribute("aria-label", `${tags[tag].name} from ${clock(start)} to ${clock(end)}`);
    button.dataset.start = String(start);
    button.dataset.end = String(end);
    button.addEventListener("click", () => seek(start));
    return button;
  }

  // The style for small screens changes the display of rows, which would hide their roles.
  function part(name, role, properties, ...children) {
    const made = element(name, properties, ...children);
    made.setAttribute("role", role);
    return made;
  }

  function addTable() {
    tags.forEach((tag, index) => {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => show(index, box.checked));
      const name = element("bdi", { textContent: tag.name });
      const label = element("label", {}, box, name);
      const head = part("th", "rowheader", { scope: "row" }, label);
      const text = tag.score.toFixed(2);
      const score = part("td", "cell", { className: "number score", textContent: text });
      const least = part("td", "cell", { className: "number wide" });
      const time = part("td", "cell", { className: "number" });
      const list = element("ul", { className: "segments" });
      const last = part("td", "cell", {}, list);
      const row = part("tr", "row", {}, head, score, least, time, last);
      get("tags").append(row);
      cells[index] = { box, row, least, time, list };
    });
  }

  function fillTable() {
    tags.forEach((tag, index) => {
      const { row, least, time, list } = cells[index];
      const own = listed(index);
      const limit = threshold ?? tag.threshold;
      least.textContent = limit === null ? "" : limit.toFixed(2);
      const total = segments[index].reduce((sum, [start, end]) => sum + end - start, 0);
      time.textContent = own.length ? clock(Math.ceil(total - 1e-9)) : "";
      const whole = threshold === null || data.exclusive ? tag.applies : tag.score >= threshold;
      row.classList.toggle("applies", whole && (threshold === null || tag.score >= threshold));
      row.classList.toggle("absent", own.length === 0);
      const shown = opened.has(index) ? own : own.slice(0, SHORT_LIST);
      list.replaceChildren(
        ...shown.map((segment) => element("li", {}, segmentButton(index, segment))),
      );
      if (shown.length < own.length) {
        const more = element("button", {
          type: "button",
          className: "more",
          textContent: `and ${own.length - shown.length} more`,
        });
        more.addEventListener("click", () => {
          opened.add(index);
          fillTable();
          cells[index].list.querySelectorAll("button")[SHORT_LIST].focus();
        });
        list.append(element("li", {}, more));
      }
    });
  }

  function show(tag, on) {
    cells[tag].box.checked = on;
    rows[tag].row.hidden = !on;
    drawRow(tag);
  }

  function showApplying() {
    let left = MOST_SHOWN;
    tags.forEach((_, tag) => {
      const on = segments[tag].length > 0 && left > 0;
      left -= on;
      show(tag, on);
    });
    if (left === MOST_SHOWN) tags.slice(0, 5).forEach((_, tag) => show(tag, true));
  }

  function setThreshold(value) {
    threshold = value;
    const limits = tags.map((tag) => tag.threshold).filter((limit) => limit !== null);
    const slider = get("threshold");
    if (value === null) {
      const mean = limits.reduce((sum, limit) => sum + limit, 0) / Math.max(limits.length, 1);
      slider.value = String(mean);
    }
    const low = Math.min(...limits).toFixed(2);
    const high = Math.max(...limits).toFixed(2);
    const range = low === high ? low : `${low} to ${high}`;
    const ofModel = limits.length ? `the model's thresholds, ${range}` : "none: the best tag applies";
    const text = value === null ? ofModel : `${value.toFixed(2)} for all tags`;
    get("threshold-value").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    get("own-thresholds").disabled = value === null;
    segments = tags.map((_, tag) => segmentsOf(tag));
    fillTable();
    draw();
    update(position);
  }

  function summarise() {
    const total = tags.reduce((sum, _, tag) => sum + listed(tag).length, 0);
    const present = segments.filter((own) => own.length).length;
    get("summary").textContent = `${count(total, "segment")} of ${count(present, "tag")}`;
  }

  // Controls

  function listenToControls() {
    timeline.addEventListener("click", (event) => {
      const { left, width } = lane();
      if (event.clientX >= left) seek(((event.clientX - left) / width) * seconds);
    });
    document.addEventListener("keydown", (event) => {
      const at = event.target;
      const own = at.closest("input, select, textarea, button, a, audio, summary");
      if (own || event.ctrlKey || event.altKey || event.metaKey) return;
      const moves = {
        ArrowLeft: () => seek(position - STEP_S),
        ArrowRight: () => seek(position + STEP_S),
        " ": togglePlay,
      };
      if (at === timeline) {
        Object.assign(moves, {
          ArrowDown: () => seek(position - STEP_S),
          ArrowUp: () => seek(position + STEP_S),
          PageDown: () => seek(position - PAGE_S),
          PageUp: () => seek(position + PAGE_S),
          Home: () => seek(0),
          End: () => seek(seconds),
        });
      }
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      move();
    });
    const slider = get("threshold");
    slider.addEventListener("input", () => setThreshold(Number(slider.value)));
    slider.addEventListener("change", summarise);
    get("own-thresholds").addEventListener("click", () => {
      setThreshold(null);
      summarise();
      slider.focus();
    });
    get("join").addEventListener("change", () => {
      fillTable();
      summarise();
    });
    get("show-applying").addEventListener("click", showApplying);
    get("show-all").addEventListener("click", () => tags.forEach((_, tag) => show(tag, true)));
    get("show-none").addEventListener("click", () => tags.forEach((_, tag) => show(tag, false)));
    get("zoom-in").addEventListener("click", () => setZoom(zoom * 2));
    get("zoom-out").addEventListener("click", () => setZoom(zoom / 2));
    document.addEventListener("themechange", () => {
      readColours();
      draw();
    });
    new ResizeObserver(redraw).observe(scroller);
  }

  readColours();
  addRows();
  addTable();
  placeSpectrogram();
  setThreshold(null);
  summarise();
  showApplying();
  setZoom(1);
  listenToControls();
  listenToAudio();
})();
