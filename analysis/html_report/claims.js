// The page of the claims: how many have each status, and the table of all claims.

function claims() {
  const { columns, rows, counts } = data.claims;
  main.replaceChildren(
    el("h2", "Claims of the paper"),
    el("p", "Every quantitative claim of the paper, with its status from the records of this report and the command whose runs would settle it. Differences have 95\u00a0% intervals (Welch), which end at the largest possible difference, 100 points. A percentage behind an interval is its coverage in simulated studies, if that is not 92 to 98\u00a0%. Reproduced is the verdict of reproduce.py, with the runs of all precisions as one series.", { class: "soft" }),
    table(["status", "claims", "meaning"], counts.map(([status, n, meaning]) => [status, n, meaning.replaceAll("`", "")])),
    el("h3", "All claims"), table(columns, rows, undefined, columns.indexOf("status")),
  );
}
