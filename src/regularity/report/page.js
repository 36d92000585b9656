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
    by("count").textContent = `${rows().length - hidden().length} of ${rows().length} trials`;
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
  const draw = async (place) => {
    const name = place.dataset.chart;
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

  // While a search runs, what is new: sections that changed are exchanged, but for one that the reader is in.
  const status = by("live");
  if (!status) return;
  const main = document.querySelector("main");
  const given = new Map(); // the sections as they were last told of, by id
  const told = (text) => new DOMParser().parseFromString(text, "text/html").querySelectorAll("section");
  const take = (section) => {
    const old = by(section.id);
    if (!old) {
      main.append(section);
    } else if (section.id === "trials" && by("table")) {
      by("table").tBodies[0].replaceWith(section.querySelector("#table tbody"));
      mark();
      sortAgain();
      filter();
    } else if (given.get(section.id) !== section.innerHTML && !old.contains(document.activeElement)) {
      const heights = new Map(all(".chart", old).map((place) => [place.dataset.chart, place.offsetHeight]));
      given.set(section.id, section.innerHTML);
      old.replaceChildren(...section.childNodes);
      all(".chart", old).forEach((place) => {
        place.style.minHeight = `${heights.get(place.dataset.chart) ?? 0}px`;
      });
    }
    watch(by(section.id));
  };
  const update = (news) => {
    const before = specs;
    specs = news.charts;
    document.title = news.title;
    [...told(news.main)].forEach((section, number) => {
      take(section);
      main.insertBefore(by(section.id), main.children[number] ?? null); // in the page's order
    });
    link();
    all(".chart[data-drawn]").forEach((place) => {
      const name = place.dataset.chart;
      if (specs[name] && JSON.stringify(specs[name]) !== JSON.stringify(before[name])) draw(place);
    });
  };
  let version = Number(status.dataset.version);
  const ask = async () => {
    let wait = 1000;
    try {
      const news = await (await fetch(`news?since=${version}`)).json();
      status.textContent = news.status;
      status.dataset.over = news.over;
      if (news.version !== version) update(news);
      version = news.version;
      root.dataset.version = version;
      if (news.over) return;
    } catch {
      status.textContent = "The search has stopped. Resume it to go on.";
      wait = 3000;
    }
    setTimeout(ask, wait);
  };
  setTimeout(ask, 1000);
})();
