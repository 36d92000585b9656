(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Light or dark: what the system has, until the reader says otherwise.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (theme) => {
    root.dataset.theme = theme;
    by("theme").textContent = theme === "dark" ? "Light" : "Dark";
  };
  show(dark.matches ? "dark" : "light");
  dark.addEventListener("change", (event) => show(event.matches ? "dark" : "light"));
  by("theme").addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));

  const say = (words) => { by("said").textContent = words; };

  // What is picked or hidden, in the table and in every chart of trials. Rows and charts of a page that is told of
  // further trials come and go, so that clicks are heard above them, and they are asked for when they are needed.
  const rows = () => all("#table tbody tr");
  const trial = (row) => Number(row.dataset.trial);
  const hidden = () => rows().filter((row) => row.hidden).map(trial);
  const picked = new Set();
  const views = new Map(); // by the name of the chart
  const isOfTrials = (name) => name.startsWith("strength-") || name === "trials";
  const signal = (name, values) =>
    views.forEach((view, chart) => isOfTrials(chart) && view.signal(name, [...values]).runAsync());

  const mark = () => rows().forEach((row) => {
    const on = picked.has(trial(row));
    row.classList.toggle("picked", on);
    row.querySelector(".pick").setAttribute("aria-pressed", on);
  });
  const pick = (number) => {
    if (!picked.delete(number)) picked.add(number);
    mark();
    signal("picked", picked);
    say(picked.size ? `Picked: ${[...picked].join(", ")}` : "Nothing is picked");
  };

  const filter = () => {
    const words = by("words").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const key = by("with").value;
    rows().forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) ||
        (key !== "" && !JSON.parse(row.dataset.with).includes(key));
    });
    const shown = rows().length - hidden().length;
    const total = by("table").dataset.total;
    by("count").textContent = `${shown} of ${shown < rows().length ? rows().length : total} trials`;
    signal("hidden", hidden());
  };

  const sort = (column, up) => {
    const value = (row) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const missing = (v) => typeof v === "number" && Number.isNaN(v);
    by("table").tBodies[0].append(...rows().sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      if (missing(one) || missing(two)) return missing(one) - missing(two); // last, up or down
      const order = typeof one === "number" ? one - two : one.localeCompare(two, undefined, { numeric: true });
      return up ? order : -order;
    }));
  };
  const sortAgain = () => {
    const head = document.querySelector("#table [aria-sort]");
    if (head) sort(head.cellIndex, head.getAttribute("aria-sort") === "ascending");
  };

  const copy = async (button) => {
    const text = by(button.dataset.of).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a file that is opened from the disk may not
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };

  const clicked = {
    ".sort": (button) => {
      const head = button.closest("th");
      const up = head.getAttribute("aria-sort") === "descending";
      all("#table th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortAgain();
    },
    ".copy": copy,
    "#clear": () => {
      by("filter").reset();
      [...picked].forEach(pick);
      filter();
    },
    "#table tbody tr": (row) => pick(trial(row)),
  };
  document.addEventListener("click", ({ target }) => {
    const [found] = Object.keys(clicked).filter((selector) => target.closest(selector));
    if (found) clicked[found](target.closest(found));
  });
  document.addEventListener("input", ({ target }) => target.closest("#filter") && filter());
  document.addEventListener("submit", (event) => event.preventDefault());

  // Charts, each drawn when it comes near the window.
  let specs = JSON.parse(by("charts").textContent);
  const drawing = new Map(); // by name, the last that was asked for
  const draw = async (place) => {
    const name = place.dataset.chart;
    const mine = (drawing.get(name) ?? Promise.resolve()).catch(() => {}).then(() => drawOnce(place, name));
    drawing.set(name, mine);
    return mine;
  };
  const drawOnce = async (place, name) => {
    if (!place.isConnected) return;
    place.style.minHeight = `${place.offsetHeight}px`; // what stands below stays where it is
    views.get(name)?.finalize();
    const { view } = await vegaEmbed(place, specs[name], { renderer: "svg", actions: false });
    views.set(name, view);
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place says what it shows
    if (isOfTrials(name)) {
      view.signal("picked", [...picked]);
      view.signal("hidden", hidden());
      view.addEventListener("click", (_, item) => {
        if (item && item.datum && item.datum.trial !== undefined) pick(item.datum.trial);
      });
      await view.runAsync();
    }
    place.style.minHeight = "";
    place.dataset.drawn = "yes";
  };
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    near.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "600px" });
  const watch = (within) => all(".chart", within).forEach((place) => near.observe(place));
  watch(document);
  const link = () => all("nav a").forEach((a) => { a.hidden = !by(a.hash.slice(1)); });
  link();
  addEventListener("beforeprint", () => all(".chart:not([data-drawn])").forEach(draw));

  // While a search runs, what is new: sections that changed are exchanged, but for one that the reader is in, which is
  // exchanged when the reader leaves it, or when the search is over.
  const status = by("live");
  if (!status || status.dataset.over === "true") return;
  const main = document.querySelector("main");
  const given = new Map(); // the sections as they were last told of, by id
  const later = new Map(); // those that wait until the reader leaves them
  const told = (text) => [...new DOMParser().parseFromString(text, "text/html").querySelectorAll("section")];
  const exchange = (old, section) => {
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const again = focused && (focused.id || focused.dataset.of || focused.tagName);
    const heights = new Map(all(".chart", old).map((place) => [place.dataset.chart, place.offsetHeight]));
    given.set(section.id, section.innerHTML);
    later.delete(section.id);
    old.replaceChildren(...section.childNodes);
    all(".chart", old).forEach((place) => {
      place.style.minHeight = `${heights.get(place.dataset.chart) ?? 0}px`;
    });
    if (again) all("[id], [data-of], summary", old).find((e) => again === (e.id || e.dataset.of || e.tagName))?.focus();
    watch(old);
  };
  const takeTrials = (section) => {
    const focused = document.activeElement.closest?.("#table tbody tr")?.dataset.trial;
    const table = section.querySelector("#table");
    const note = by("trials").querySelector("#rest"), next = section.querySelector("#rest");
    by("table").dataset.total = table.dataset.total;
    by("table").tBodies[0].replaceWith(table.tBodies[0]);
    if (note) note.replaceWith(...(next ? [next] : []));
    else if (next) by("trials").append(next);
    mark();
    sortAgain();
    filter();
    if (focused) rows().find((row) => row.dataset.trial === focused)?.querySelector(".pick").focus({ preventScroll: true });
  };
  const take = (section, over) => {
    const old = by(section.id);
    if (!old) {
      main.append(section);
      watch(section);
    } else if (section.id === "trials" && by("table")) {
      takeTrials(section);
    } else if (given.get(section.id) !== section.innerHTML) {
      if (over || !old.contains(document.activeElement)) exchange(old, section);
      else later.set(section.id, section);
    }
  };
  document.addEventListener("focusout", () => setTimeout(() => later.forEach((section, id) => {
    if (!by(id).contains(document.activeElement)) exchange(by(id), section);
  })));
  const update = (news) => {
    const before = specs;
    specs = news.charts;
    document.title = news.title;
    told(news.main).forEach((section, number) => {
      take(section, news.over);
      const here = by(section.id); // in the page's order; what is moved loses focus and place, so only what has to
      if (main.children[number] !== here) main.insertBefore(here, main.children[number] ?? null);
    });
    link();
    all(".chart[data-drawn]").forEach((place) => {
      const name = place.dataset.chart;
      if (specs[name] && JSON.stringify(specs[name]) !== JSON.stringify(before[name])) draw(place);
    });
  };
  const page = `${performance.timeOrigin}-${Math.random()}`;
  const study = by("title").textContent;
  let version = Number(status.dataset.version);
  let phase = "";
  const tell = (text, over) => {
    if (status.textContent !== text) status.textContent = text;
    status.dataset.over = over;
    const now = over ? "The search is over" : (text.match(/stopped|racing|judging|worth/) ?? [""])[0];
    if (now !== phase) say(now); // and not every second what the clock says
    phase = now;
  };
  const ask = async () => {
    let news;
    try {
      news = await (await fetch(`news?since=${version}&page=${page}`)).json();
    } catch {
      tell("The search has stopped. Resume it to go on.", false);
      setTimeout(ask, 3000);
      return;
    }
    if (news.study !== study) {
      location.reload(); // another search at the same address
      return;
    }
    if (news.version !== version) update(news);
    version = news.version;
    tell(news.status, news.over);
    if (!news.over) setTimeout(ask, 1000);
  };
  ask();
})();
