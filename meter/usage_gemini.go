package meter

import (
	"encoding/json"
)

type geminiUsage struct {
	Prompt        count `json:"promptTokenCount"`
	CachedContent count `json:"cachedContentTokenCount"`
	ToolUsePrompt count `json:"toolUsePromptTokenCount"`
	Candidates    count `json:"candidatesTokenCount"`
	Thoughts      count `json:"thoughtsTokenCount"`
	Total         count `json:"totalTokenCount"`
}

func readGemini(s *state, data []byte, whole bool) error {
	type response struct {
		UsageMetadata geminiUsage `json:"usageMetadata"`
		Candidates    []struct {
			FinishReason any `json:"finishReason"`
		} `json:"candidates"`
		PromptFeedback struct {
			BlockReason any `json:"blockReason"`
		} `json:"promptFeedback"`
	}
	var event response
	if err := json.Unmarshal(data, &event); err != nil {
		return err
	}
	s.finished = s.finished || event.PromptFeedback.BlockReason != nil
	for _, candidate := range event.Candidates {
		s.finished = s.finished || candidate.FinishReason != nil
	}
	s.set(event.UsageMetadata, whole || s.finished)
	return nil
}

// Vertex AI sends metadata of other kinds with the first chunks.
func (u geminiUsage) said() bool { return u.Prompt.said }

func (u geminiUsage) tokens() (Tokens, error) {
	var cs counts
	prompt, cached := cs.need("promptTokenCount", u.Prompt), cs.may("cachedContentTokenCount", u.CachedContent)
	tool := cs.may("toolUsePromptTokenCount", u.ToolUsePrompt)
	thoughts, total := cs.may("thoughtsTokenCount", u.Thoughts), cs.may("totalTokenCount", u.Total)
	candidates := cs.may("candidatesTokenCount", u.Candidates)
	sum := prompt + tool + candidates + thoughts
	// Zeros are left out, so it takes the total to know that this is one.
	if !u.Candidates.said && (!u.Total.said || total != sum) {
		cs.need("candidatesTokenCount", u.Candidates)
	}
	if err := cs.err(); err != nil {
		return Tokens{}, err
	}
	if u.Total.said && total != sum {
		return Tokens{}, badUsage("totalTokenCount %d: not the sum of prompt %d, tool use %d,"+
			" candidates %d and thoughts %d", total, prompt, tool, candidates, thoughts)
	}
	if cached > prompt {
		return Tokens{}, badUsage("%d cached of %d prompt tokens", cached, prompt)
	}
	return checked(Tokens{
		InputTokens: prompt - cached + tool, CacheReadTokens: cached,
		OutputTokens: candidates, ReasoningTokens: thoughts,
	})
}
